"""What a user of ClearML's SDK does with an export, in a process of its own.

The SDK reads its environment when it is imported, so it cannot be told of a server later.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def register(folder: Path) -> dict[str, Any]:
    """Register an export with the server of the environment, and fetch its masks back."""
    from clearml.hyperdatasets import HyperDataset

    from maskcube.formats.clearml_sdk import to_clearml_sdk

    dataset = HyperDataset(project_name="masks", dataset_name="laion-fmri", version_name="v1")
    entries = to_clearml_sdk(folder)
    told: dict[str, Any] = {"errors": dataset.add_data_entries(entries, max_workers=1)}
    labels = folder / "mask_labels.json"
    if labels.exists():
        told["set"] = dataset.set_metadata(json.loads(labels.read_text()))
        told["metadata"] = dataset.get_metadata()
    subs = [sub for entry in entries for sub in entry.sub_data_entries]
    told["uris"] = {entry.id: sub.get_masks_source_dict() for entry, sub in zip(entries, subs)}  # noqa: B905 - one each
    told["local"] = {entry.id: sub.get_local_masks_source() for entry, sub in zip(entries, subs)}  # noqa: B905 - one each
    return told


if __name__ == "__main__":
    found = register(Path(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(found))
