"""The panel in a notebook, in a real kernel: one output that changes in place, and what stays of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from small_world import ROOT, World, is_running, wait_for

from evolve.notebook import in_a_notebook, watcher_here
from evolve.panel import PlainLines
from evolve.watcher import Silence

TRAIN = """\
import os, time
from evolve import evolve
from trainer import EpochMetrics

seen = []
def train(job):
    seen.append(job)
    for epoch in range(1, 4):
        if os.path.exists("hang"):
            (job.workdir / "pid").write_text(str(os.getpid()))
            time.sleep(600)
        time.sleep(0.6 if os.path.exists("slow") else 0.1)
        score = 0.5 + 0.1 * job.hyp["momentum"]
        yield EpochMetrics(epoch, score, score, score, score)
"""
EVOLVE = 'best = evolve(trainer=train, space="space.yaml", epochs=3, generations=4, pruner="none")'


class Watched(NotebookClient):
    """Keeps what a kernel sends: the kind of each message, and its text."""

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        sent = msg["msg_type"], str(msg["content"].get("data", {}).get("text/plain", ""))
        self.sent = [*getattr(self, "sent", ()), sent]
        return super().process_message(msg, cell, cell_index)


def notebook_of(world: World, monkeypatch: pytest.MonkeyPatch, *cells: str) -> Watched:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(world.folder / "ipython"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    where = {"metadata": {"path": str(world.folder)}}
    return Watched(notebook, timeout=120, kernel_name="python3", resources=where)


def test_a_study_in_a_notebook_is_one_output_that_changes_in_place(world: World, monkeypatch: pytest.MonkeyPatch):
    client = notebook_of(world, monkeypatch, TRAIN, EVOLVE, "best", "len(seen)")
    client.execute()
    _, ran, result, seen = client.nb.cells
    kinds = [kind for kind, _ in client.sent]
    assert kinds.count("display_data") == 1
    assert kinds.count("update_display_data") >= 4
    assert [output.get("text", output.output_type) for output in ran.outputs] == ["display_data"]
    html, text = ran.outputs[0].data["text/html"], ran.outputs[0].data["text/plain"]
    for shown in (html, text):
        assert "preparing notebook ..." in shown
        assert "4 of 4 generations are done: 4 complete, 0 pruned, 0 failed" in shown
        assert "hyp file: runs/notebook/best/hyp.yaml" in shown
        assert "time left" not in shown, "the panel goes, the summary stays"
    assert html.startswith("<pre style=")
    assert result.outputs[0].data["text/plain"].startswith("<Result of notebook: fitness 0.5")
    assert seen.outputs[0].data["text/plain"] == "0", "it trains in another process"
    assert len(world.trials("notebook")) == 4


def test_the_panel_stands_there_while_a_study_runs(world: World, monkeypatch: pytest.MonkeyPatch):
    (world.folder / "slow").touch()
    client = notebook_of(world, monkeypatch, TRAIN, EVOLVE)
    client.execute()
    panels = [text for _, text in client.sent if "time left" in text]
    assert any("generation 0/4" in text and "trial 0: epoch 1 of 3" in text for text in panels)
    assert any("what it changed most" in text and "complete" in text and "1/4" in text for text in panels)


def test_a_cell_that_is_interrupted_leaves_no_process_and_the_study_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    (world.folder / "hang").touch()
    client = notebook_of(world, monkeypatch, TRAIN, EVOLVE)
    pids: list[int] = []

    def interrupt() -> None:
        runs = world.folder / "runs"
        pids.append(int(wait_for(lambda: next((file.read_text() for file in runs.rglob("pid")), ""), 60)))
        os.kill(client.km.provisioner.pid, signal.SIGINT)
        time.sleep(1)  # as somebody does who waits for the first to take effect
        os.kill(client.km.provisioner.pid, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
        client.execute()
    thread.join()
    assert "interrupted; the same command goes on from here" in str(client.nb.cells[1].outputs)
    wait_for(lambda: not is_running(pids[0]))
    (world.folder / "hang").unlink()
    notebook_of(world, monkeypatch, TRAIN, EVOLVE).execute()
    assert len([trial for trial in world.trials("notebook") if trial.state.name == "COMPLETE"]) == 4


def test_outside_of_a_notebook_lines_tell_how_it_goes():
    assert not in_a_notebook()
    assert isinstance(watcher_here(quiet=False), PlainLines)
    assert isinstance(watcher_here(quiet=True), Silence)
