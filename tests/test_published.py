"""What the makers of the checkpoints publish, against what is built with them."""

import pytest

import ivkit as iv

FLOAT = {"dtype": "float32", "device": "cpu"}


@pytest.mark.parametrize("name", ["pia", "pia-lcm", "animatediff"])
def test_clips_are_denoised_with_the_schedule_that_pia_and_animatediff_were_trained_with(name):
    """Where sampling starts, the square root of alpha-bar is .0397; a wrong one moves it."""
    scheduler = iv.load(name, small=True, **FLOAT).model.scheduler(4)
    assert type(scheduler).__name__ == ("LCMScheduler" if name == "pia-lcm" else "DDIMScheduler")
    c = scheduler.config
    assert (c.beta_schedule, c.beta_start, c.beta_end) == ("linear", 0.00085, 0.012)
    assert (c.steps_offset, c.clip_sample, c.prediction_type) == (1, False, "epsilon")
    assert float(scheduler.alphas_cumprod[-1] ** 0.5) == pytest.approx(0.0397, abs=5e-5)
