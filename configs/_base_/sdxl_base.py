# Stable Diffusion XL base 1.0 at 1024 pixels; the bundled mini model on a
# machine without an accelerator (CUDA, mps, xpu ...).
model = dict(
    sd=dict(
        type='StableDiffusion',
        pretrained='stabilityai/stable-diffusion-xl-base-1.0',
        without_cuda='mini-sd',
    ),
)
