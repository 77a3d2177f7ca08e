"""The training recipe of the mini Stable Diffusion, stage by stage."""
