"""A check of schemathesis: a call opens to the roles that the OpenAPI document names, and to nobody else."""

import os

import schemathesis

# Of the key that the calls carry; none where they carry no key, or one that isn't known.
ROLES = set(filter(None, os.environ["HEADWATER_ROLES"].split(",")))
REFUSED = {401, 403}
# What is refused before it is asked who calls: a head that is too large or no HTTP.
UNHEARD = {400, 414, 431}


@schemathesis.check
def opens_to_its_roles(ctx, response, case):
    if case.method.upper() != case.operation.method.upper():
        return
    asked = case.operation.definition.raw["security"]
    wanted = {role for scheme in asked for roles in scheme.values() for role in roles}
    status = response.status_code
    if not wanted or "admin" in ROLES or wanted & ROLES:
        assert status not in REFUSED, f"{status} for {ROLES}, where {wanted} opens it"
    else:
        expected = 403 if ROLES else 401
        assert status == expected or status in UNHEARD, f"{status} for {ROLES}, where {wanted} opens it"
