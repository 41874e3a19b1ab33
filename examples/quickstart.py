"""A machine of one's own: a program in it, asleep and awake, and copied. Needs `runtools up`."""

from runtools import RunTools

with RunTools() as rt, rt.sandboxes.create(name="hello") as sandbox:
    sandbox.files.write("/workspace/hi.py", "import os; print('hello from', os.uname().nodename)")
    print(sandbox.exec(["python3", "hi.py"]).stdout)
    sandbox.pause()  # memory and processes go to disk
    sandbox.resume()  # ... and come back
    [twin] = sandbox.fork()  # a second machine with the same memory
    print(twin.exec("python3 hi.py").stdout)
    twin.destroy()
