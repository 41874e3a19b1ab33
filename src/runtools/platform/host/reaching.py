"""What sandboxes may reach: changes of their egress policies, and the logs of what they were refused."""

from __future__ import annotations

from runtools.errors import Conflict, InvalidRequest, SandboxStopped
from runtools.platform.core.egress import BadRule
from runtools.platform.core.states import Operation, State
from runtools.platform.host.engine.actor import Actor
from runtools.platform.host.engine.engine import Engine
from runtools.sdk.shapes.egress import Egress, EgressLog, EgressRules

# Their networks stay as they are meanwhile: a change need not wait for them.
_BESIDE = {None, Operation.SNAPSHOTTING, Operation.FORKING}
# Nothing of it is touched yet, and what waits for room may wait for long.
_UNTOUCHED = Operation.QUEUED


class Reaching:
    """The part of the host port about egress."""

    engine: Engine

    async def set_egress(self, sandbox_id: str, generation: int, egress: Egress) -> None:
        """Put a policy in force; what it does not admit is cut."""
        box = self.engine.actor(sandbox_id)
        doing = box.record.operation
        if doing is _UNTOUCHED or (box.state is State.RUNNING and doing in _BESIDE):
            await _change(box, generation, egress)
        else:
            await box.perform(lambda: _change(box, generation, egress), asked=True)

    async def egress_log(self, sandbox_id: str) -> EgressLog:
        """What it was refused."""
        return self.engine.actor(sandbox_id).refusals.view()


async def _change(box: Actor, generation: int, egress: Egress) -> None:
    """The journal first: whoever opens a network from now on opens it under the new policy."""
    if box.state is State.STOPPED:
        raise SandboxStopped(f"{box.id} has stopped")
    held = box.record.egress_generation
    if generation < held:
        raise Conflict(
            f"{box.id} has an egress policy of generation {held}, which is newer than {generation}",
            hint="look at the policy in force, and change that",
            details={"egress_generation": held},
        )
    rules = EgressRules(allow=egress.allow, deny=egress.deny)
    order = box.record.order.model_copy(update={"internet": egress.internet, "egress": rules})
    try:
        policy = order.policy
    except BadRule as exc:
        raise InvalidRequest(str(exc)) from exc
    box.books.keep_order(order, egress_generation=generation)
    for slot in box.slots():
        await box.engine.network.change(slot, policy)
