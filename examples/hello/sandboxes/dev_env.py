from runtools import define_sandbox

define_sandbox(
    slug="dev-env",
    template="base-debian",
    setup=["mkdir -p /workspace/src"],
)
