"""What a person sees of a run: a line that is rewritten on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping
from datetime import timedelta

from tqdm import tqdm


class Progress:
    """Prints a run's progress, on one process only."""

    def __init__(self, start: int, total_steps: int, *, shown: bool):
        self._shown, self._total = shown, total_steps
        self._bar: tqdm | None = None
        if shown and sys.stderr.isatty():
            form = "{desc} |{bar:20}| {postfix}"
            self._bar = tqdm(total=total_steps, initial=start, bar_format=form, leave=True)

    def step(self, step: int, scalars: Mapping[str, float]) -> None:
        """Shows the scalars under `train/` and, once they are known, under `time/`."""
        text = f"loss {scalars['train/loss']:.4f}, rate {scalars['train/lr']:.2e}"
        if "time/images_per_second" in scalars:
            left = timedelta(seconds=round(scalars["time/seconds_left"]))
            mfu = f"MFU {scalars['time/mfu']:.1%}, " if "time/mfu" in scalars else ""
            text += (
                f", {scalars['time/images_per_second']:,.0f} img/s, {mfu}"
                f"waiting for data {scalars['time/data_wait']:.0%}, {left} left"
            )
        if "time/checkpoint_wait" in scalars:
            text += f", {scalars['time/checkpoint_wait']:.1f} s for saving"
        if "time/checkpoint_write" in scalars:
            text += f", a checkpoint written in {scalars['time/checkpoint_write']:.1f} s"
        if scalars["train/skipped"]:
            text += f", {scalars['train/skipped']:,.0f} images skipped"
        if self._bar is not None:
            self._bar.set_description_str(f"step {step}/{self._total}", refresh=False)
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
            self._bar.refresh()
        elif self._shown:
            print(f"step {step}/{self._total}: {text}", flush=True)

    def message(self, text: str) -> None:
        """Prints a line of its own."""
        if self._bar is not None:
            self._bar.write(text)
        elif self._shown:
            print(text, flush=True)

    def close(self) -> None:
        """Leaves the last line as it is."""
        if self._bar is not None:
            self._bar.close()
