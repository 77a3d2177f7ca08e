# Stable Diffusion v1-5 at 512 pixels; the bundled mini model on a machine
# without an accelerator (CUDA, mps, xpu ...).
model = dict(
    sd=dict(
        type='StableDiffusion',
        # the owner who first published it has taken it down; this is a mirror
        pretrained='stable-diffusion-v1-5/stable-diffusion-v1-5',
        without_cuda='mini-sd',
    ),
)
