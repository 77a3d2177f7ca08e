"""What all frozen models are: the surface that editors see."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mmhiper.models.autocast import no_autocast
from mmhiper.models.backbones.noise import Diffusion, NoiseProcess
from mmhiper.models.backbones.record import recorded, without_source
from mmhiper.models.compiling import compile_blocks
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.guidance import own_scale
from mmhiper.models.loading import (
    DTYPES,
    REMEDIES,
    SCHEDULER,
    ModelSource,
    PartKind,
    PartSource,
    check_vocabulary,
    choose_backbone,
    find_source,
    load_parts,
)
from mmhiper.models.offload import call_on
from mmhiper.models.text_encoders import TextEncoders
from mmhiper.models.vocabulary import Vocabulary
from mmhiper.utils.arguments import (
    KeepsArguments,
    ValuesOf,
    arguments_of,
    only_plain,
    plain,
)
from mmhiper.utils.devices import usable_dtype
from mmhiper.utils.errors import UserError
from mmhiper.utils.reading import printable

PartOptions = Annotated[dict[str, Any] | None, ValuesOf(PartSource)]


class Backbone(KeepsArguments, nn.Module):
    """A frozen text-to-image model: text encoders, autoencoder, U-Net.

    A family is a subclass; docs/en/add_a_backbone.md says what it answers.
    Which one a model is of is read from the model's own index.

    Args:
        pretrained: A hub id, a local folder in the diffusers layout, a single
            ``.safetensors`` or ``.ckpt`` file, or ``'mini-sd'``, the small
            model that comes with this package.
        without_cuda: What a machine loads instead that has no accelerator to
            hold ``pretrained``: neither CUDA nor another that PyTorch knows
            (Apple's mps, Intel's xpu). None keeps ``pretrained`` everywhere.
        dtype: Precision of the frozen weights: 'fp32', 'bf16', 'fp16'.
            Conditionings, latents and predictions are fp32 in every case. A
            device that does not compute in it takes fp32, and says so.
        unet, vae, text_encoder: Overrides of single parts: ``pretrained`` and
            ``subfolder`` say where that part comes from, other keys are passed
            to its ``from_pretrained``.
        scheduler: The same two keys for the scheduler, and ``type``, the
            scheduler of diffusers that pictures are sampled with; other keys
            are values of its config
            (``dict(type='DPMSolverMultistepScheduler',
            use_karras_sigmas=True)``).
        vae_tiling: Whether the autoencoder takes pictures that are larger than
            it was trained on tile by tile.
        offload: Whether text encoders and autoencoder stay on the CPU and are
            copied to the device for as long as they compute. In Textual
            Inversion that is in each step.
        gradient_checkpointing: Whether the U-Net computes most of what a
            gradient needs a second time, in place of keeping it.
        compile: Whether ``torch.compile`` makes one program of each block of
            the U-Net, or the name of a backend of it. The first steps take
            longer; where attention is controlled from outside nothing is
            compiled.

    Attributes:
        title: Of the family, for messages.
        architecture: Of the family, as ModelSpec calls it; '' is its title.
        kinds: Its parts, by the names they have here.
        usual_guidance: Its scale where nothing says another.
        reads_weights: Whether compel reads texts for it, see
            :class:`WeightedText`.
        backbone: What was really loaded.
        process: Its noise, in training and sampling.
        guidance_scale: What pictures are drawn with where nobody says a scale,
            see :func:`own_scale`.

    Raises:
        FileNotFoundError: If a local path does not exist.
        ValueError: If an option is unknown, ``pretrained`` cannot be loaded,
            or is of another family.
    """

    title: ClassVar[str]
    architecture: ClassVar[str] = ''
    kinds: ClassVar[Mapping[str, PartKind]]
    usual_guidance: ClassVar[float]
    reads_weights: ClassVar[bool] = False
    families: ClassVar[list[type[Backbone]]] = []
    process: NoiseProcess
    _source: ModelSource

    def __init_subclass__(cls, **options: Any) -> None:
        """Lists a class with parts of its own as a family."""
        super().__init_subclass__(**options)
        if 'kinds' in vars(cls):
            cls.families.append(cls)

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Finds the model, which says whether it is of this family."""
        names = dict(zip(('pretrained', 'without_cuda'), args, strict=False))
        names |= options
        wanted, small = names.get('pretrained'), names.get('without_cuda')
        if not (isinstance(wanted, str) and isinstance(small, str | None)):
            # a copy, which is given nothing, or a mistake, which is told
            return super().__new__(cls, *args, **options)
        source = find_source(choose_backbone(wanted, small))
        family = cls.family_of(source)
        unknown = options.keys() - arguments_of(family)
        if unknown:
            raise UserError(
                f'A {family.title} such as {source.name!r} has no option '
                f'{", ".join(map(repr, sorted(unknown)))}. It has '
                f'{", ".join(arguments_of(family))}.'
            )
        self = super().__new__(family, *args, **options)
        self.__dict__['_source'] = source
        if not isinstance(self, cls):  # else Python calls it
            self.__init__(*args, **options)
        return self

    def __init__(
        self,
        pretrained: str,
        without_cuda: str | None = None,
        dtype: str = 'fp32',
        unet: PartOptions = None,
        vae: PartOptions = None,
        text_encoder: PartOptions = None,
        scheduler: dict | None = None,
        vae_tiling: bool = False,
        offload: bool = False,
        gradient_checkpointing: bool = False,
        compile: bool | str = False,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise UserError(
                f'`dtype` must be one of {list(DTYPES)}, but got {dtype!r}.'
            )
        self.backbone = self._source.name
        precision = usable_dtype(DTYPES[dtype])
        given = dict(
            unet=unet, vae=vae, text_encoder=text_encoder, scheduler=scheduler
        )
        read = {}
        if self._source.single_file:
            read = self.read_single_file(self._source, precision)
        parts = load_parts(self._source, self.kinds, precision, given, read)
        self.vae = parts['vae']
        self.unet = parts['unet']
        names = sorted(n for n in parts if n.startswith('text_encoder'))
        models = [parts[name] for name in names]
        self.tokenizers = [
            parts[name.replace('text_encoder', 'tokenizer')] for name in names
        ]
        self.text_encoders = self.join(models)
        self.process = self.make_process(
            parts[SCHEDULER], without_source(scheduler or {})
        )
        # its class is recorded by another name, see `RecordedOptions`
        values = {k: v for k, v in (scheduler or {}).items() if k != 'type'}
        self._given |= only_plain(dict(scheduler=plain(values)))
        self.guidance_scale = own_scale(
            self.backbone,
            self.unet,
            parts[SCHEDULER],
            self.process.samples_with,
            self.usual_guidance,
        )
        self.vocabularies = [
            self.read_vocabulary(*pair)
            for pair in zip(self.tokenizers, models, strict=True)
        ]
        self.adapt()
        self._memory_format = torch.contiguous_format
        self.offload = offload
        if vae_tiling:
            self.vae.enable_tiling()
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        if compile:
            backend = 'inductor' if compile is True else compile
            compile_blocks(self.unet, backend)
        # Gradients pass through the frozen model to the embedding, none is
        # computed for its weights: 0.69 of the work of a step with them.
        self.requires_grad_(False)
        self.eval()

    # ------------------------------------------------ what a family answers
    @classmethod
    def fits(cls, source: ModelSource) -> bool:
        """Whether a model is of this family, by the parts that it has.

        Args:
            source: The model, of which its index is known.

        Returns:
            Whether it has all parts of the family, and no part of another.
        """
        own = {kind.folder for kind in cls.kinds.values()}
        needed = {k.folder for k in cls.kinds.values() if not k.optional}
        all_known = {
            kind.folder
            for family in cls.families
            for kind in family.kinds.values()
        }
        has = source.folders
        return {*needed, SCHEDULER} <= has and not has & (all_known - own)

    @classmethod
    def read_single_file(
        cls, source: ModelSource, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Reads a model from one file; a family that has none refuses.

        Args:
            source: The file.
            dtype: Precision of the weights.

        Returns:
            Parts by name, 'scheduler' a config. Those that are not in it come
            from the folder of the file.

        Raises:
            ValueError: If it cannot be read.
        """
        raise UserError(
            f'A {cls.title} cannot be read from the single file '
            f'{source.path!r}. Give its folder in the diffusers layout or its '
            'hub id.'
        )

    def join(self, models: Sequence[Any]) -> Any:
        """Makes one module of the text encoders.

        Args:
            models: They, in the order of their names.

        Returns:
            As :class:`TextEncoders`.
        """
        return TextEncoders(models)

    def read_vocabulary(self, tokenizer: Any, model: Any) -> Vocabulary:
        """The words of a text encoder.

        Args:
            tokenizer: Its tokenizer.
            model: The text encoder.

        Returns:
            Without new words.

        Raises:
            ValueError: If they do not belong together.
        """
        check_vocabulary(self.backbone, tokenizer, model)
        return Vocabulary(tokenizer)

    def make_process(
        self, config: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> NoiseProcess:
        """The noise that the model was trained with.

        Args:
            config: In the scheduler's folder.
            changes: What the option ``scheduler`` says.

        Returns:
            Denoising diffusion, unless a family says else.
        """
        return Diffusion(config, changes, self.backbone)

    def adapt(self) -> None:
        """Changes parts that do not work as they were loaded."""

    @abstractmethod
    def predict(
        self, latents: Tensor, times: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """Runs the model; gradients reach the conditioning.

        Args:
            latents: Noised latents, (B, C, h, w).
            times: One number, or (B,), on any device.
            conditioning: Tokens (B, M, D), or of many stages and layers, with
                the pooled text where the family has one, and values where
                cross-attention can take them (inside ``attention_control``).

        Returns:
            (B, C, h, w) fp32, the raw output.
        """

    @abstractmethod
    def pipeline(
        self, tokenizers: Sequence[Any], models: Sequence[Any]
    ) -> Any:
        """Makes the unmodified pipeline of diffusers of this family.

        Args:
            tokenizers: Of the pipeline's text encoders.
            models: These text encoders.

        Returns:
            A pipeline that shares the other parts.
        """

    @property
    def attention(self) -> Any:
        """The U-Net, if its attention to the text can be controlled."""
        return None

    @property
    def text_layers(self) -> int:
        """How many layers can each read a text of their own.

        Raises:
            ValueError: If the text and the picture are read together.
        """
        raise UserError(
            f'In a {self.title} such as {self.backbone!r} no layer reads the '
            'text alone, so none can be given a text of its own. '
            'TextualInversion and ProSpect work with it.'
        )

    # ------------------------------------------------- families and records
    @classmethod
    def family_of(cls, source: ModelSource) -> type[Backbone]:
        """The family of a model, this one or one that goes by its name.

        Args:
            source: The model, of which its index is known.

        Returns:
            Its class.

        Raises:
            ValueError: If it is of another family.
        """
        for family in reversed(cls.families):  # the newest knows best
            if family.fits(source):
                if family.kinds is getattr(cls, 'kinds', None):
                    return cls  # the family, or a variant of it
                if cls._stands_for(family):
                    return family
        wanted = ' or '.join(
            f'{family.title} '
            f'({", ".join(k.folder for k in family.kinds.values())})'
            for family in cls.families
            if cls._stands_for(family)
        )
        found = printable(', '.join(sorted(source.folders)))[:200]
        raise UserError(
            f'Wanted a {wanted}, each with a {SCHEDULER}, but '
            f'{source.path!r} is a '
            f'{printable(source.index.get("_class_name"))[:80]} with '
            f'{found or "no parts"}. {REMEDIES}'
        )

    @classmethod
    def _stands_for(cls, family: type[Backbone]) -> bool:
        """Whether a config may name this class and mean that family."""
        return issubclass(family, cls)

    @override
    def given_arguments(self) -> dict[str, Any]:
        """Those that decide what it computes, see `RecordedOptions`."""
        given = super().given_arguments()
        return recorded(dict(given, sampler=self.process.samples_with))

    # --------------------------------------------------------------- devices
    @override
    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode: a frozen model has no other."""
        return super().train(False)

    @override
    def _apply(self, fn: Any, recurse: bool = True) -> Backbone:
        """Leaves at home what ``offload`` keeps there."""
        if not self.offload:
            return super()._apply(fn, recurse)
        self.unet._apply(fn, recurse)
        return self

    def _run(self, module: Any, method: str, *args: Any) -> Any:
        """Calls a method of a frozen part on the device, in its precision."""
        with no_autocast(self.device):
            if self.offload:
                return call_on(self.device, module, method, *args)
            return getattr(module, method)(*args)

    @property
    def device(self) -> torch.device:
        """Where it computes: the device of the U-Net."""
        return next(self.unet.parameters()).device

    @property
    def devices(self) -> dict[str, torch.device]:
        """Where the weights of each part lie while nothing is computed."""
        parts = ('text_encoders', 'vae', 'unet')
        return {
            name: next(getattr(self, name).parameters()).device
            for name in parts
        }

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return next(self.unet.parameters()).dtype

    def lay_out(self, memory_format: torch.memory_format) -> None:
        """Lays the U-Net's weights out in memory; values stay the same.

        Channels last makes a training step faster. It also rounds differently
        from the diffusers pipelines, so pictures are drawn in their layout.

        Args:
            memory_format: ``torch.channels_last`` or
                ``torch.contiguous_format``.
        """
        if self._memory_format != memory_format:
            self.unet.to(memory_format=memory_format)
            self._memory_format = memory_format

    # ----------------------------------------------------------------- sizes
    @property
    def vae_factor(self) -> int:
        """Pixels per latent along each side (8 in all families so far)."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def image_size(self) -> int:
        """Side of the pictures it was trained on, in pixels."""
        return self.unet.config.sample_size * self.vae_factor

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape of the latents of one picture.

        Args:
            height: In pixels, a multiple of ``vae_factor``.
            width: Likewise.

        Returns:
            (C, h, w).
        """
        channels = self.vae.config.latent_channels
        return channels, height // self.vae_factor, width // self.vae_factor

    def facts(self) -> dict[str, str]:
        """What user interfaces want to know.

        Returns:
            By the names of :mod:`mmhiper.io.modelspec`.
        """
        facts = dict(
            architecture=self.architecture
            or re.sub(r'\W+', '-', self.title.lower()).strip('-'),
            resolution=f'{self.image_size}x{self.image_size}',
        )
        predicts = getattr(self.process, 'prediction_type', None)
        if predicts:
            facts['prediction_type'] = predicts.removesuffix('_prediction')
        return facts

    # ----------------------------------------------------------------- texts
    @property
    def tokenizer(self) -> Any:
        """The (first) tokenizer."""
        return self.tokenizers[0]

    @property
    def text_encoder(self) -> Any:
        """The (first) text encoder."""
        return self.text_encoders.models[0]

    @property
    def vocabulary(self) -> Vocabulary:
        """The (first) tokenizer's words."""
        return self.vocabularies[0]

    @property
    def num_positions(self) -> int:
        """Token positions of a text, M (77 in all families so far)."""
        return self.vocabulary.num_positions

    @property
    def token_tables(self) -> list[Tensor]:
        """The embeddings of all known tokens, (V, D) per text encoder."""
        tables: list[Tensor] = self.text_encoders.tables
        return tables

    def count_tokens(self, text: str) -> int:
        """The number of tokens of a text, without start and end marks."""
        return self.vocabulary.count(text)

    def row_of(self, word: str) -> Tensor:
        """What the token tables have of a word.

        Args:
            word: One token of each of them.

        Returns:
            Its rows side by side, (D,) fp32.

        Raises:
            ValueError: If it is several tokens.
        """
        rows = [
            table[vocabulary.single_token(word, table)].float()
            for table, vocabulary in zip(
                self.token_tables, self.vocabularies, strict=False
            )
        ]
        return torch.cat(rows)

    def free_in(self, free: int) -> list[int]:
        """How many of the last positions are free in each text encoder.

        Args:
            free: Of the whole text.

        Returns:
            The same in all, unless a family says else.
        """
        return [free] * len(self.vocabularies)

    def room(self, free: int = 0) -> int:
        """How many tokens of a text fit.

        Args:
            free: Positions at the end of all that it is not to reach.

        Returns:
            Without start and end marks.
        """
        pairs = zip(self.vocabularies, self.free_in(free), strict=True)
        return min(vocabulary.room(each) for vocabulary, each in pairs)

    @torch.no_grad()
    def encode_text(self, texts: list[str], free: int = 0) -> Conditioning:
        """Encodes texts, padded to all M positions and cut to what fits.

        Args:
            texts: B texts; '' is the unconditional one.
            free: Positions N at the end that no token of a text may reach; 0
                leaves the last one to the end mark.

        Returns:
            As :meth:`encode_ids`.
        """
        pairs = zip(self.vocabularies, self.free_in(free), strict=True)
        return self.encode_ids(
            [each.encode(texts, each.room(own)) for each, own in pairs]
        )

    @torch.no_grad()
    def encode_nothing(self, count: int) -> Conditioning:
        """What guidance moves away from where no negative prompt is given.

        Args:
            count: Rows B.

        Returns:
            The empty text B times.
        """
        return self.encode_text(['']).repeat_interleave(count)

    def encode_ids(
        self, ids: Sequence[Tensor], rows: Tensor | None = None
    ) -> Conditioning:
        """Encodes token ids; gradients reach the new rows.

        Entry A of docs/en/method.md: before the text encoder.

        Args:
            ids: For each text encoder, (B, M) integers; id V + r, with V known
                tokens, is row r of ``rows``.
            rows: New rows of the token tables, side by side where there are
                several, (R, D).

        Returns:
            Tokens (B, M, D) in fp32, with the pooled text (B, P) where the
            family has one.
        """
        ids = [each.to(self.device, non_blocking=True) for each in ids]
        encoded: Conditioning = self._run(
            self.text_encoders, 'forward', ids, rows
        )
        return encoded

    def run_text_model(
        self,
        number: int,
        ids: Tensor,
        rows: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Any:
        """Runs one of the text encoders alone.

        Args:
            number: Which.
            ids: (B, M) integers, on the device.
            rows: New rows of its own table, see :meth:`encode_ids`.
            mask: (B, M), 0 at positions that the others do not look at.

        Returns:
            What it puts out, as transformers has it.
        """
        return self._run(
            self.text_encoders, 'run_one', number, ids, rows, mask
        )

    # -------------------------------------------------------------- pictures
    @property
    def _latent_shift(self) -> float:
        """What latents are moved by before they are scaled."""
        return self.vae.config.get('shift_factor') or 0.0

    @torch.no_grad()
    def encode_image(
        self, pixels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Encodes pictures into scaled latents.

        Args:
            pixels: (B, 3, H, W) in [-1, 1].
            generator: Draws a sample of the posterior (on the generator's
                device). None takes its mean.

        Returns:
            (B, C, h, w) fp32, as the U-Net sees them.
        """
        posterior = self._run(
            self.vae, 'encode', pixels.to(self.device, self.vae.dtype)
        ).latent_dist
        if generator is None:
            latents = posterior.mean
        else:
            latents = posterior.sample(generator)
        shifted = latents.float() - self._latent_shift
        return shifted * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decodes scaled latents into pictures, one after another.

        Args:
            latents: (B, C, h, w).

        Returns:
            (B, 3, H, W) fp32, about [-1, 1], not clamped.
        """
        unscaled = latents / self.vae.config.scaling_factor
        unscaled = unscaled + self._latent_shift
        # The layers at full size need more memory than all the rest of
        # drawing, and a batch would need it for all its pictures at once.
        decoded = [
            self._run(self.vae, 'decode', each).sample.float()
            for each in unscaled.to(self.vae.dtype).split(1)
        ]
        return torch.cat(decoded)
