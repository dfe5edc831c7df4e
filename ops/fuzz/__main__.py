"""The attacks: `just fuzz NAME`."""

from ops.commands import run

NAMES = {
    "contract": (
        "contract.contract",
        "hold the service to its OpenAPI document: 20,000 requests by schemathesis",
    ),
    "hardness": (
        "hardness.hardness",
        "slow, silent, rude and numerous clients: the others are served as ever",
    ),
    "decoders": ("decoders.decoders", "feed the decoders with atheris (pip install atheris)"),
}

if __name__ == "__main__":
    run("ops.fuzz", "contract", NAMES)
