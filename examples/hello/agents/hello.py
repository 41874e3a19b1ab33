from runtools import define_agent

define_agent(
    slug="hello",
    name="Hello",
    model="demo",
    system_prompt="You write small programs, run them and say what came out.",
    tools=["word-count"],
    sandbox="dev-env",
)
