"""The attacks: `just fuzz NAME`."""

from ops.commands import run

NAMES = {
    "contract": (
        "contract.main",
        "hold the service to its OpenAPI document: 20,000 requests by schemathesis",
    ),
    "hardness": ("hardness.main", "slow, silent, rude and numerous clients: the others are served as ever"),
    "decoders": ("decoders.main", "feed the decoders with atheris (pip install atheris)"),
}

if __name__ == "__main__":
    run("ops.fuzz", "contract", NAMES)
