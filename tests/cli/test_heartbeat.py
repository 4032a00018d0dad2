"""The demo is never silent for long."""

import io
import re
import sys
import threading

import pytest

from astroquery_lis import demo


def test_a_step_that_takes_its_time_says_so_in_lines(monkeypatch):
    monkeypatch.setattr(demo, "_TICK_S", 0.01)
    monkeypatch.setattr(demo, "_LINE_S", 0.03)
    lines, enough = [], threading.Event()

    def say(text):
        lines.append(text)
        if len(lines) == 4:
            enough.set()

    with demo.Heartbeat(say) as tell:
        tell("A step")
        tell.begin("Another")
        assert enough.wait(60)
    count = len(lines)
    assert lines[0] == "A step"
    assert all(re.fullmatch("  Another: [0-9]+ s", line) for line in lines[1:])
    assert len(lines) == count


def test_a_terminal_gets_a_bar(monkeypatch):
    tqdm = pytest.importorskip("tqdm.auto").tqdm
    moved = threading.Event()

    class Screen(io.StringIO):
        def write(self, text):
            if "Another: 0 s" in text:
                moved.set()
            return super().write(text)

    screen, lines = Screen(), []
    monkeypatch.setattr(demo, "_TICK_S", 0.01)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    with demo.Heartbeat(lines.append) as tell:
        tell("A step")
        tell.begin("Another")
        assert moved.wait(60)
    assert lines == ["A step"]
    assert isinstance(tell._bar, tqdm)
