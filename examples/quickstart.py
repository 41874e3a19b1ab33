"""A machine of one's own: a program in it, asleep and awake, copied, gone. Needs `runtools up`."""

from runtools import RunTools

with RunTools() as rt, rt.sandboxes.create() as sb:
    print(sb.exec(["python3", "-c", "print(sum(range(10**6)))"]).stdout)
    sb.exec("sleep 600 > /dev/null 2>&1 & echo $! > pid")
    sb.pause()  # memory and processes lie on disk now, and cost nothing
    sb.resume()  # and go on where they were
    [twin] = sb.fork()  # a second machine, the running process included
    with twin:
        print(twin.exec("ps -o pid,etime,args -p $(cat pid)").stdout)
