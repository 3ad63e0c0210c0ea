"""How the benchmark is told: tables with the goals beside what was measured."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from backend.settings import FAST_MODES

if TYPE_CHECKING:
    from tools.bench import Costs, Subject

FIRST, LATER, FAST = 1.02, 0.90, 4.0  # ratios to bare diffusers: at most, at most, and how much faster at least
CANCEL = 0.25  # steps
STALL = 8.0  # milliseconds
# Denoising and CFG that the fast modes are compared at: where the embedded model draws best, and the defaults.
FAINT, STRONG = (0.5, 1.0), (0.75, 7.0)

HEAD = """# What a picture costs

Written by `make bench`. Bare is diffusers' own StableDiffusionImg2ImgPipeline on the same model, picture, prompts,
steps and precision, as its documentation says; ours is the whole job. Each is measured in a process of its own, in
turns: the first run from the process's start, the second with everything warm. {judged}

{machine}; load {load:.1f} when it began.
"""


WHY_LATER = """
Why the second run misses its goal: what is kept spares the reading of picture and prompts, a twentieth of the job. The
rest is model calls and drawing the picture, where only the layout of memory can be better without changing it."""
ON_PROCESSOR = """Seconds of the wall suffer from whatever
else runs on the machine, seconds of the processor (of all its cores together) hardly: the goals are judged by these."""
ON_CARD = "The goals are judged by seconds of the wall."


class Report:
    """A report in the making."""

    def __init__(self, machine: str, on_card: bool) -> None:
        judged = ON_CARD if on_card else ON_PROCESSOR
        self._lines = [HEAD.format(judged=judged, machine=machine, load=os.getloadavg()[0])]
        self._machine = machine
        self._work = "s" if on_card else "processor s"

    def text(self) -> str:
        """Return the whole report."""
        return "\n".join(self._lines).rstrip() + "\n"

    def _section(self, title: str, *lines: str) -> None:
        self._lines += [f"## {title}", "", *lines, ""]

    def beside(self, subject: Subject, bare: Costs, ours: Costs, more: int = 0) -> None:
        """Add a whole job beside bare diffusers, and what it would be with so many more steps run."""
        rows = [
            ("first run, wall s", bare.first("wall"), ours.first("wall"), 0.0),
            (f"first run, {self._work}", bare.first("cpu"), ours.first("cpu"), FIRST if more else 0.0),
            ("second run, wall s", bare.later("wall"), ours.later("wall"), 0.0),
            (f"second run, {self._work}", bare.later("cpu"), ours.later("cpu"), LATER if more else 0.0),
            (f"a step, {self._work}", bare.later("step"), ours.later("step"), 0.0),
            ("memory at its peak, GB", bare.memory, ours.memory, 0.0),
        ]
        if more:
            longer = [costs.later("cpu") + more * costs.later("step") for costs in (bare, ours)]
            rows.append((f"second run of {subject.run + more} steps, {self._work}, reckoned", *longer, LATER))
        self._section(
            f"{subject.title}, {subject.side}², {subject.run} of {subject.steps} steps",
            "| | bare | ours | ratio | goal |",
            "|---|---|---|---|---|",
            *(f"| {name} | {a:.2f} | {b:.2f} | {b / a:.2f} | {verdict(b / a, most)} |" for name, a, b, most in rows),
            "",
            f"Processes of each: {len(ours.runs)}. Medians, but for the memory.",
            *((WHY_LATER,) if more and ours.later("cpu") > LATER * bare.later("cpu") else ()),
        )

    def frames(self, subject: Subject, found: dict[str, float]) -> None:
        """Add what frames cost in a worker."""
        self._section(
            f"Frames in a worker, {subject.title.lower()}, {subject.side}²",
            f"Times that the model was loaded: {found['loads']:.0f}. A frame takes {found['later']:.2f} s, the first "
            f"{found['first']:.2f} s with the worker's start. From submitting to the first step: "
            f"{found['warm'] * 1000:.0f} ms warm, {found['cold']:.2f} s cold.",
        )

    def peak(self, found: dict[str, Any], ours: Costs) -> None:
        """Add how much of what the device can do is used."""
        rate = found["flops"] / ours.later("step")
        self._section(
            "How much of the device is used",
            f"A guided step is {found['flops'] / 1e12:.2f} TFLOP. In a second of work {rate / 1e12:.2f} are done: "
            f"{rate / found['peak']:.0%} of the {found['peak'] / 1e12:.2f} that a large matrix product reaches here. "
            f"{1 / ours.later('wall'):.3f} images a second.",
        )

    def cancels(self, ours: Costs) -> None:
        """Add how long a cancel waits to be seen."""
        names = {"Step": "Step 1, 2, …", "": "(nothing yet)"}
        self._section(
            "How soon a cancel is seen, in steps, at Stable Diffusion 1's size",
            "| while it says | on average | at worst | goal |",
            "|---|---|---|---|",
            *(
                f"| {names.get(doing, doing)} | {mean:.3f} | {worst:.3f} | {verdict(worst, CANCEL)} |"
                for doing, (worst, mean) in ours.waits.items()
            ),
            "",
            "Every look at the cancel of a whole job was noted; what counts is the time between two of them.",
        )

    def fast(
        self,
        exact: dict[str, Any],
        bare: Costs,
        ours: Costs,
        hurried: dict[str, dict[str, Any]],
        fidelity: dict[str, list[float]],
    ) -> None:
        """Add what the fast modes save and cost."""
        begun, warm = exact["cpu"][0], exact["cpu"][0] - bare.first("cpu") + bare.later("cpu")
        rows: list[tuple[str, float, float, str]] = [
            ("bare, float32", begun, warm, "| "),
            ("bare", bare.first("cpu"), bare.later("cpu"), "| "),
            ("ours", ours.first("cpu"), ours.later("cpu"), "| "),
        ]
        for mode, costs in hurried.items():
            faint, strong = fidelity[mode]
            rows.append((f"ours, {FAST_MODES[mode][0]}", *costs["cpu"], f"{faint:.1f} | {strong:.1f}"))
        best = warm / rows[-1][2]
        self._section(
            "Fast modes",
            f"| | first run, {self._work} | faster | second run, {self._work} | faster "
            f"| PSNR at {FAINT[0]} | at {STRONG[0]} |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {name} | {first:.1f} | {begun / first:.1f}× | {later:.1f} | {warm / later:.1f}× | {told} |"
                for name, first, later, told in rows
            ),
            "",
            "Faster than bare diffusers in float32, whose second run is reckoned: its first less what the second of "
            f"bare {self._machine.rpartition(' ')[2]} saves. Goal: {FAST:.0f}× in a second run, "
            f"{'met' if best >= FAST else 'MISSED'}. PSNR in dB to the full picture, on the embedded model (random "
            f"weights say nothing about pictures), at a denoising strength of {FAINT[0]} (CFG {FAINT[1]:g}) and of "
            f"{STRONG[0]} (CFG {STRONG[1]:g}), mean of four seeds.",
        )

    def main_thread(self, found: dict[str, dict[str, float]]) -> None:
        """Add how long a job holds Blender's main thread."""
        self._section(
            "How long Blender's main thread is held by a job of 1024², ms",
            "| backend | sending | running, p99 | running, longest | the result | goal (p99) |",
            "|---|---|---|---|---|---|",
            *(
                f"| {backend} | {ms['sent']:.1f} | {ms['often']:.2f} | {ms['longest']:.1f} | {ms['result']:.1f} "
                f"| {verdict(ms['often'], STALL)} |"
                for backend, ms in found.items()
            ),
        )


def verdict(found: float, most: float) -> str:
    """Return a goal and whether it was met; nothing where there is none."""
    return f"≤ {most:g} {'met' if found <= most else 'MISSED'}" if most else ""
