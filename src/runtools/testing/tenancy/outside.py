"""Which routes are about no org's records, and which answers change by themselves."""

from __future__ import annotations

from collections.abc import Mapping

WHOLE_MACHINE: Mapping[str, str] = {
    "GET /v1/disk": "the operator's: room on the machine's disks",
    "GET /v1/hosts": "the operator's: the machines and how full they are",
    "GET /v1/orgs/{org_id}/limits": "the operator's: what an org may have",
    "PATCH /v1/orgs/{org_id}/limits": "the operator's: sets what an org may have",
    "POST /v1/orgs": "the operator's: makes orgs",
    "GET /v1/people": "the operator's: everybody who has an account",
    "PATCH /v1/people/{user_id}": "the operator's: who else is one",
    "POST /v1/people/{user_id}/reset": "the operator's: lets somebody set another password",
    "DELETE /v1/people/{user_id}": "the operator's: closes an account",
    "POST /v1/prune": "the operator's: frees room on the machine",
}

MEASURED: Mapping[str, str] = {
    "GET /v1/usage": "added up as time goes by",
    "GET /v1/sandboxes/{ref}/stats": "measured anew for every answer",
    "GET /v1/sandboxes/{ref}/stats/history": "measured as time goes by",
}

# A key is refused, whatever it names; `flow/api/test_people` shows whose is whose.
OF_A_PERSON = frozenset(
    {
        "DELETE /v1/sessions",
        "DELETE /v1/sessions/{session_id}",
        "GET /v1/me/identities",
        "DELETE /v1/me/identities/{identity_id}",
        "GET /v1/sessions",
        "POST /v1/invitations/accept",
        "POST /v1/me/close",
        "POST /v1/me/password",
        "POST /v1/org/leave",
        "POST /v1/orgs/{org_id}/switch",
    }
)

NOT_OF_AN_ORG: Mapping[str, str] = {
    "GET /healthz": "needs no key and tells of no org",
    "GET /readyz": "needs no key and tells of no org",
    "GET /metrics": "opens to a token that is no org's key",
    "POST /v1/logins": "needs no key and tells of no org",
    "POST /v1/logins/finish": "needs no key and tells nothing but to who began the login",
}
