# Stable Diffusion v1-4 at 512 pixels; the bundled mini model on a machine
# without a CUDA device.
model = dict(
    sd=dict(
        type='StableDiffusion',
        pretrained='CompVis/stable-diffusion-v1-4',
        without_cuda='mini-sd',
    ),
)
