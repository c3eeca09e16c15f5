---@meta
--- Made from fields.lua; a spec compares them. To make it again:
---   lua5.4 -e 'io.write(require("sagan.config").annotations())' > scripts/sagan/config_types.lua

---@class sagan.Fields
---@field name? string Name of the run; its folder under runs/.
---@field question? string What the experiment asks, in one line.
---@field recipe? string The set of choices that everything unsaid comes from.
---@field profile? "auto"|"quick"|"small"|"paper" Scale: quick (minutes on two cores), small (about an hour on one GPU), paper (days).
---@field profile_reason? string Why profile=auto chose what it chose; filled in.
---@field seed? integer Seed of all random numbers.
---@field data? string Data set: auto, fashion-mnist, idx:PATH, cifar10:PATH, folder:PATH, pack:FILE, quadrupeds[:count].
---@field model? sagan.Fields.model The two networks.
---@field loss? "hinge"|"bce"|"wasserstein" Loss of both networks; bce is the first GAN's, with the generator's non-saturating form.
---@field auxiliary? sagan.Fields.auxiliary The discriminator's class head (model.d_head=auxiliary).
---@field optimizer? sagan.Fields.optimizer Adam, one for each network.
---@field train? sagan.Fields.train The training loop.
---@field device? "auto"|"cpu"|"cuda" Where to compute.
---@field threads? integer CPU threads; 0: all cores. The results do not depend on it.
---@field precision? "f32"|"tf32"|"bf16" Arithmetic on a GPU; the CPU computes in f32.
---@field winograd? boolean Faster 3x3 convolutions on the CPU by Winograd's algorithm; the roundings differ.
---@field log? sagan.Fields.log What is written down while training.
---@field sample? sagan.Fields.sample Pictures drawn while training.
---@field checkpoint? sagan.Fields.checkpoint Saved states.
---@field attention? integer|integer[]|"none" Sizes of attention in both networks.

---@class sagan.Fields.model
---@field resolution? 32|64|128|256 Side of the images in pixels.
---@field width? integer Channels of the narrowest layers; all others are multiples.
---@field channels? 1|3|"data" Channels of the images: 1 grey, 3 colour.
---@field classes? integer|"data" Number of classes.
---@field z_dim? integer Length of the generator's random input.
---@field conditional? boolean Class-conditional: batch-norm tables in the generator, projection in the discriminator.
---@field d_head? "projection"|"auxiliary" How D knows classes: projection (embedding of the label times features) or auxiliary (AC-GAN: a head that names them).
---@field d_width? number Width of the discriminator, in units of model.width.
---@field d_hidden? "wide"|"thin" Channels inside a discriminator block: wide as its output, thin as its input.
---@field inplace_shortcut? boolean The shortcut of a discriminator block sees relu(x), as where an in-place ReLU overwrites x.
---@field upsample? "nearest"|"bilinear" How the generator's blocks double the size; bilinear with half-pixel centres (align_corners=False).
---@field generator_linear_bias? boolean Bias of the generator's first layer.
---@field attention? sagan.Fields.model.attention Self-attention: where and in which form.
---@field spectral_norm? sagan.Fields.model.spectral_norm Spectral normalisation of the weights.
---@field batch_norm? sagan.Fields.model.batch_norm Batch normalisation in the generator.
---@field init? sagan.Fields.model.init Initial values of the weights.

---@class sagan.Fields.model.attention
---@field generator? integer|integer[]|"none" Sizes of the generator's feature maps that attention follows.
---@field discriminator? integer|integer[]|"none" Sizes of the discriminator's feature maps that attention follows.
---@field form? "slides"|"pooled"|"v2"|"residual" slides: f, g C/8, h C; pooled: the official code's; v2: C/8 and back; residual: a block of as many parameters.
---@field kernel? 3|5|7 Kernel of the residual form; as many parameters whatever its size.
---@field gamma_init? number Initial value of the gate gamma.
---@field spectral_norm? boolean Normalise the projections, in a network that has spectral norm.

---@class sagan.Fields.model.spectral_norm
---@field generator? boolean Normalise the generator's convolutions and linear layer.
---@field discriminator? boolean Normalise the discriminator's convolutions and linear layer.
---@field embedding? boolean Normalise the discriminator's class embedding too.
---@field cbn? boolean Normalise the conditional batch-norm tables too; bounds every class's gains.
---@field iterations? integer Power iterations in one pass.
---@field eps? number Added to the norms that divide.
---@field u_init? "normal"|"truncated" Distribution of the first u: normal, or cut off at two standard deviations. (Its length makes no difference.)
---@field through? boolean Let the gradient flow through the power iteration.
---@field update? "every_forward"|"own_step"|"real_pass" When u is stored: in each training pass, only in the net's own step, or (D) only in the pass of real images.

---@class sagan.Fields.model.batch_norm
---@field eps? number Added to the variance.
---@field momentum? number How far running statistics move to the batch's.
---@field last_momentum? number The same in the normalisation before the last convolution; 0: as the others.
---@field gain_offset? number Added to the gain tables; 1 when they hold differences from 1.
---@field init? "identity"|"weights" Conditional tables start as gain 1 and bias 0, or like other weights.
---@field update? "every_forward"|"own_step" When running statistics move: in each training pass, or only in the generator's step.

---@class sagan.Fields.model.init
---@field weights? "xavier"|"orthogonal"|"normal" Initialiser of all weights.
---@field gain? number Factor of the 3x3 convolutions of the blocks.
---@field shortcut_gain? number Factor of the shortcuts' 1x1 convolutions.
---@field std? number Standard deviation for normal.
---@field bias? "zeros"|"fan_uniform" Initial biases: 0, or +-1/sqrt(fan in).

---@class sagan.Fields.auxiliary
---@field d_weight? number Weight of the cross-entropy of classes in D's loss.
---@field g_weight? number Weight of the cross-entropy of classes in G's loss.
---@field d_on_fake? boolean D learns to name the classes of fakes too, not of real images only.

---@class sagan.Fields.optimizer
---@field lr_g? number Learning rate of the generator.
---@field lr_d? number Learning rate of the discriminator.
---@field rate_factor? number Factor of both rates: a scale of few steps needs larger ones, and an experiment's rates keep their meaning.
---@field beta1? number Adam's beta1.
---@field beta2? number Adam's beta2.
---@field eps? number Adam's epsilon.
---@field tf_eps? boolean Epsilon inside the bias correction, as TensorFlow 1.
---@field weight_decay? number Decoupled weight decay.

---@class sagan.Fields.train
---@field steps? integer Generator steps.
---@field batch? integer Images in one step, over all accumulated parts.
---@field d_steps? integer Discriminator steps before each generator step.
---@field accumulate? integer Parts that a batch is computed in; their gradients are added.
---@field g_batch? integer Batch of the generator step, in units of train.batch.
---@field d_forward? "together"|"separate" Real and fake images through the discriminator in one pass or in two.
---@field order? "d_first"|"g_first" Which network is updated first in a step.
---@field ema_decay? number Decay of the generator's moving average; 0: none. Training does not depend on it.
---@field ema_start? integer Step from which the average is one; a plain copy before.
---@field flip? boolean Mirror each image with probability 1/2.
---@field dequantize? number Width of the uniform noise added to images in [-1, 1].
---@field lr_decay? number Share of the steps, at the end, in which the rates fall linearly to 0; 0: never, 1: from the first step.

---@class sagan.Fields.log
---@field every? integer Steps between two lines of the log.
---@field tensorboard? boolean Write a TensorBoard event file too.

---@class sagan.Fields.sample
---@field every? integer Steps between two picture sheets; 0: only at the end.
---@field rows? integer Rows of a picture sheet: one for each class, spread over them if there are more.
---@field columns? integer Columns of a picture sheet; each has its own z.
---@field attention? boolean Draw attention maps beside the pictures.

---@class sagan.Fields.checkpoint
---@field every? integer Steps between two checkpoints; 0: only at the end.
---@field keep? integer How many of the last checkpoints stay.
