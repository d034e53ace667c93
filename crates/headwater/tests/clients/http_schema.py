"""Every HTTP call against the server's own OpenAPI document, by schemathesis, within a bounded time: as the document
says it is answered, and opened by keys of the roles that it names and by no others."""

import os
import pathlib
import subprocess
import sys
import tempfile

from project import FILES, served, serving, write_files

# Seconds for everything.
TIME_MAX = 90
CONFIG = pathlib.Path(__file__).with_name("schemathesis.toml")


# Callers, by the roles of their keys; of a stranger's key the server knows nothing.
CALLERS = {"nobody": [], "a stranger": [], "read": ["read"], "write": ["write"], "admin": ["admin"]}
# Examples of a call by each of them.
EXAMPLES_MAX = 3
STRANGERS_KEY = "hw_0000000000_" + 64 * "0"


def by_roles(tool, binary):
    """Every call by every kind of caller."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder, FILES)
        subprocess.run([binary, "apply"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        keys = {"a stranger": STRANGERS_KEY}
        for role in ["read", "write", "admin"]:
            create = [binary, "keys", "create", "--role", role]
            made = subprocess.run(create, cwd=folder, check=True, capture_output=True, text=True)
            keys[role] = made.stdout.strip()
        with serving(binary, folder) as url, tempfile.TemporaryDirectory() as notes:
            for caller, roles in CALLERS.items():
                command = [tool, "--config-file", CONFIG, "run", f"{url}/openapi.json"]
                command += ["--checks", "not_a_server_error,opens_to_its_roles", "--phases", "fuzzing"]
                command += ["--max-examples", str(EXAMPLES_MAX), "--generation-with-security-parameters", "false"]
                if caller in keys:
                    command += ["--header", f"Authorization: Bearer {keys[caller]}"]
                here = {"SCHEMATHESIS_HOOKS": "roles_check", "PYTHONPATH": str(CONFIG.parent)}
                environment = os.environ | here | {"HEADWATER_ROLES": ",".join(roles)}
                subprocess.run(command, check=True, timeout=TIME_MAX, cwd=notes, env=environment)


def gave_up(said):
    """Whether it was the tool's own generator that failed ("inconsistent results"), as it did once and not the next time:
    then no check did. A check that failed counts, whatever a second run would say."""
    return "inconsistent" in said.lower() and "= FAILURES =" not in said


def main():
    tool = pathlib.Path(sys.executable).with_name("schemathesis")
    # It leaves notes where it runs.
    with served(sys.argv[1]) as url, tempfile.TemporaryDirectory() as folder:
        command = [tool, "--config-file", CONFIG, "run", f"{url}/openapi.json"]
        ran = subprocess.run(command, timeout=TIME_MAX, cwd=folder, stdout=subprocess.PIPE, text=True)
        print(ran.stdout, flush=True)
        if ran.returncode != 0:
            if not gave_up(ran.stdout):
                sys.exit("schemathesis: failed")
            subprocess.run(command, check=True, timeout=TIME_MAX, cwd=folder)
    by_roles(tool, sys.argv[1])
    print("schemathesis: passed")


if __name__ == "__main__":
    main()
