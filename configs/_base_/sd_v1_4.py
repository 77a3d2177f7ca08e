# Stable Diffusion v1-4 at 512 pixels; the bundled mini model on a machine
# without an accelerator (CUDA, mps, xpu ...).
model = dict(
    sd=dict(
        type='StableDiffusion',
        pretrained='CompVis/stable-diffusion-v1-4',
        without_cuda='mini-sd',
    ),
)
