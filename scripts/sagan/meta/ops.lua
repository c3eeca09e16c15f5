---@meta _
-- Made by scripts/dev/stubs.lua; do not edit.

---@class sagan.core
local core = {}

---@class sagan.ops
core.ops = {}

--- Convolution of x, or with relu of max(x, 0), plus residual. x {N,H,W,C}, w {K,R,S,C}, b {K} -> y {N,P,Q,K}, P = (H + 2 pad_h - R) / stride + 1; residual y's shape, or {N,P/2,Q/2,K} for each number on 2x2 pixels. With sigma {1}, the convolution is by w / sigma.
---@param x sagan.Tensor
---@param w sagan.Tensor
---@param b? sagan.Tensor
---@param residual? sagan.Tensor
---@param sigma? sagan.Tensor
---@param stride? integer default 1
---@param pad_h? integer default 0
---@param pad_w? integer default 0
---@param relu? boolean default false
---@return sagan.Tensor y
function core.ops.conv2d(x, w, b, residual, sigma, stride, pad_h, pad_w, relu) end

--- Nearest x2 upsampling, then 3x3 convolution with padding 1, fused: 16/36 of the multiplies. x {N,H,W,C}, w {K,3,3,C}, b {K} -> y {N,2H,2W,K}. sigma as in conv2d.
---@param x sagan.Tensor
---@param w sagan.Tensor
---@param b? sagan.Tensor
---@param sigma? sagan.Tensor
---@return sagan.Tensor y
function core.ops.upconv(x, w, b, sigma) end

--- 3x3 convolution of x, or with relu of max(x, 0), with padding 1, then 2x2 mean pooling, fused: 16/36 of the multiplies. x {N,H,W,C}, H and W even, w {K,3,3,C}, b {K} -> y {N,H/2,W/2,K}. sigma as in conv2d.
---@param x sagan.Tensor
---@param w sagan.Tensor
---@param b? sagan.Tensor
---@param sigma? sagan.Tensor
---@param relu? boolean default false
---@return sagan.Tensor y
function core.ops.convpool(x, w, b, sigma, relu) end

--- Matrix product of {M,K} and {K,N}, or batched {B,M,K} and {B,K,N}; a transposed operand is stored the other way round.
---@param a sagan.Tensor
---@param b sagan.Tensor
---@param trans_a? boolean default false
---@param trans_b? boolean default false
---@return sagan.Tensor y
function core.ops.matmul(a, b, trans_a, trans_b) end

--- y = x w^T + b. x {..., I} seen as rows, w {O,I}, b {O} -> y {..., O}.
---@param x sagan.Tensor
---@param w sagan.Tensor
---@param b? sagan.Tensor
---@return sagan.Tensor y
function core.ops.linear(x, w, b) end

--- max(x, 0); the gradient at 0 is 0.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.relu(x) end

--- x where x > 0, else slope * x.
---@param x sagan.Tensor
---@param slope? number default 0.2
---@return sagan.Tensor y
function core.ops.leaky_relu(x, slope) end

--- Hyperbolic tangent.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.tanh(x) end

--- 1 / (1 + exp(-x)).
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.sigmoid(x) end

--- log(1 + exp(x)), without overflow.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.softplus(x) end

--- Exponential.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.exp(x) end

--- Natural logarithm.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.log(x) end

--- Square root.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.sqrt(x) end

--- The square, x * x.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.square(x) end

--- Absolute value; the gradient at 0 is 0.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.abs(x) end

--- a * x + b with numbers a and b.
---@param x sagan.Tensor
---@param a? number default 1.0
---@param b? number default 0.0
---@return sagan.Tensor y
function core.ops.scale(x, a, b) end

--- a + b. b has a's shape, or is {1}, or has the trailing dimensions of a and repeats.
---@param a sagan.Tensor
---@param b sagan.Tensor
---@return sagan.Tensor y
function core.ops.add(a, b) end

--- a - b; b broadcasts as in add.
---@param a sagan.Tensor
---@param b sagan.Tensor
---@return sagan.Tensor y
function core.ops.sub(a, b) end

--- a * b; b broadcasts as in add.
---@param a sagan.Tensor
---@param b sagan.Tensor
---@return sagan.Tensor y
function core.ops.mul(a, b) end

--- a / b; b broadcasts as in add.
---@param a sagan.Tensor
---@param b sagan.Tensor
---@return sagan.Tensor y
function core.ops.div(a, b) end

--- y = gamma * o + x, the gate of self-attention (paper, eq. 3). x and o equal shapes, gamma {1}.
---@param x sagan.Tensor
---@param o sagan.Tensor
---@param gamma sagan.Tensor
---@return sagan.Tensor y
function core.ops.gated_add(x, o, gamma) end

--- Batch normalisation over all but the last dimension, optionally with a fused ReLU. gain, bias {C}. train: batch statistics, and the running ones move by momentum (unbiased variance); else the running statistics. The factor is gain + gain_offset.
---@param x sagan.Tensor
---@param gain? sagan.Tensor
---@param bias? sagan.Tensor
---@param running_mean? sagan.Tensor written in place
---@param running_var? sagan.Tensor written in place
---@param train? boolean default true
---@param momentum? number default 0.1
---@param eps? number default 1e-05
---@param relu? boolean default false
---@param gain_offset? number default 0.0
---@return sagan.Tensor y
function core.ops.batch_norm(x, gain, bias, running_mean, running_var, train, momentum, eps, relu, gain_offset) end

--- Class-conditional batch normalisation: gain and bias are tables {classes,C}, labels {N} i32 picks the row of each image. x {N,H,W,C}. Else as batch_norm.
---@param x sagan.Tensor
---@param gain sagan.Tensor
---@param bias sagan.Tensor
---@param labels sagan.Tensor
---@param running_mean? sagan.Tensor written in place
---@param running_var? sagan.Tensor written in place
---@param train? boolean default true
---@param momentum? number default 0.1
---@param eps? number default 1e-05
---@param relu? boolean default false
---@param gain_offset? number default 0.0
---@return sagan.Tensor y
function core.ops.cond_batch_norm(x, gain, bias, labels, running_mean, running_var, train, momentum, eps, relu, gain_offset) end

--- Nearest x2. x {N,H,W,C} -> y {N,2H,2W,C}.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.upsample(x) end

--- Mean over size x size windows. include_pad: zero padding counts in the divisor (Inception's 2015 graph leaves it out).
---@param x sagan.Tensor
---@param size? integer default 2
---@param stride? integer default 2
---@param pad? integer default 0
---@param include_pad? boolean default true
---@return sagan.Tensor y
function core.ops.mean_pool(x, size, stride, pad, include_pad) end

--- Maximum over size x size windows; the first of equal values gets the gradient.
---@param x sagan.Tensor
---@param size? integer default 2
---@param stride? integer default 2
---@param pad? integer default 0
---@return sagan.Tensor y
function core.ops.max_pool(x, size, stride, pad) end

--- Sum over H and W. x {N,H,W,C} -> y {N,C}.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.global_sum_pool(x) end

--- a then b along axis; the other dimensions are equal.
---@param a sagan.Tensor
---@param b sagan.Tensor
---@param axis? integer counted from 1 default 1
---@return sagan.Tensor y
function core.ops.concat(a, b, axis) end

--- length elements from start along axis.
---@param x sagan.Tensor
---@param axis integer counted from 1
---@param start integer counted from 1
---@param length integer
---@return sagan.Tensor y
function core.ops.slice(x, axis, start, length) end

--- y's dimension i is x's dimension d_i.
---@param x sagan.Tensor
---@param d0? integer counted from 1 default 1
---@param d1? integer counted from 1 default 2
---@param d2? integer counted from 1 default 3
---@param d3? integer counted from 1 default 4
---@return sagan.Tensor y
function core.ops.permute(x, d0, d1, d2, d3) end

--- Sum over one axis, which disappears; without one over everything -> {1}. Partial sums in a fixed order.
---@param x sagan.Tensor
---@param axis? integer counted from 1
---@return sagan.Tensor y
function core.ops.sum(x, axis) end

--- Mean, axis as in sum.
---@param x sagan.Tensor
---@param axis? integer counted from 1
---@return sagan.Tensor y
function core.ops.mean(x, axis) end

--- L2 norm of everything -> {1}; the gradient at 0 is 0.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.norm(x) end

--- Largest value -> {1}; NaN if there is one.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.max(x) end

--- Smallest value -> {1}; NaN if there is one.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.min(x) end

--- Index of the largest value along the last dimension (counted from 0), i32; it disappears.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.argmax(x) end

--- How many values are NaN or infinite -> {1} f32.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.count_nonfinite(x) end

--- Softmax over the last dimension.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.softmax(x) end

--- Logarithm of softmax over the last dimension.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.log_softmax(x) end

--- o_j = sum_i softmax_i(scale * q_j . k_i) v_i; memory O(N): the map is never stored. q {B,Nq,D}, k {B,Nk,D}, v {B,Nk,E} -> o {B,Nq,E}. Paper eq. 1-2 with q = g(x), k = f(x), v = h(x), scale 1.
---@param q sagan.Tensor
---@param k sagan.Tensor
---@param v sagan.Tensor
---@param scale? number default 1.0
---@return sagan.Tensor o
function core.ops.attention(q, k, v, scale) end

--- The softmax rows of chosen query points. q {B,Nq,D}, k {B,Nk,D}, queries {M} i32 (counted from 0) -> p {B,M,Nk}.
---@param q sagan.Tensor
---@param k sagan.Tensor
---@param queries sagan.Tensor
---@param scale? number default 1.0
---@return sagan.Tensor p
function core.ops.attention_map(q, k, queries, scale) end

--- Mean over batch and queries of the entropy (nats) and of the mean attended distance in positions of a map `width` wide (queries and keys on grids of equal extent) -> s {2}.
---@param q sagan.Tensor
---@param k sagan.Tensor
---@param width integer
---@param scale? number default 1.0
---@return sagan.Tensor s
function core.ops.attention_stats(q, k, width, scale) end

--- The largest singular value of each layer's matrix in the slab w {n}, all layers in one call: what the layer's weights are to be divided by. layers {L,5} i32: offset, rows, columns, offset in u, offset in v. iterations power steps from u, x / (|x| + eps) or x / max(|x|, eps) if eps_max; u and v are written back only if update. sigma {L} is always written. divisor {L}: sigma, or 1 for a layer of zeros. Gradient: u, v constants, or through the iterations.
---@param w sagan.Tensor
---@param u sagan.Tensor written in place
---@param v sagan.Tensor written in place
---@param sigma sagan.Tensor written in place
---@param layers sagan.Tensor
---@param iterations? integer default 1
---@param eps? number default 1e-12
---@param update? boolean default true
---@param through? boolean default false
---@param eps_max? boolean default false
---@return sagan.Tensor divisor
function core.ops.spectral_norm(w, u, v, sigma, layers, iterations, eps, update, through, eps_max) end

--- Rows of a table. table {V,D}, index {N} i32, counted from 0 -> y {N,D}.
---@param table sagan.Tensor
---@param index sagan.Tensor
---@return sagan.Tensor y
function core.ops.embedding(table, index) end

--- mean(max(0, 1 - real)) + mean(max(0, 1 + fake)) (paper eq. 4).
---@param real sagan.Tensor
---@param fake sagan.Tensor
---@return sagan.Tensor y
function core.ops.hinge_d(real, fake) end

--- -mean(fake) (paper eq. 4).
---@param fake sagan.Tensor
---@return sagan.Tensor y
function core.ops.hinge_g(fake) end

--- mean(softplus(-real)) + mean(softplus(fake)): the original GAN loss on logits.
---@param real sagan.Tensor
---@param fake sagan.Tensor
---@return sagan.Tensor y
function core.ops.bce_d(real, fake) end

--- mean(softplus(-fake)): the non-saturating generator loss.
---@param fake sagan.Tensor
---@return sagan.Tensor y
function core.ops.bce_g(fake) end

--- mean(fake) - mean(real).
---@param real sagan.Tensor
---@param fake sagan.Tensor
---@return sagan.Tensor y
function core.ops.wasserstein_d(real, fake) end

--- -mean(fake).
---@param fake sagan.Tensor
---@return sagan.Tensor y
function core.ops.wasserstein_g(fake) end

--- Mean of -log softmax(logits)[label]. logits {N,K}, labels {N} i32, counted from 0.
---@param logits sagan.Tensor
---@param labels sagan.Tensor
---@return sagan.Tensor y
function core.ops.cross_entropy(logits, labels) end

--- Fills x with uniform numbers in [low, high).
---@param x sagan.Tensor written in place
---@param clock sagan.Tensor
---@param seed integer
---@param stream integer
---@param low? number default 0.0
---@param high? number default 1.0
---@return sagan.Tensor # its first argument
function core.ops.uniform(x, clock, seed, stream, low, high) end

--- Fills x with normal numbers; bound > 0: truncated to mean +- bound * std by taking the quantile of a uniform number.
---@param x sagan.Tensor written in place
---@param clock sagan.Tensor
---@param seed integer
---@param stream integer
---@param mean? number default 0.0
---@param std? number default 1.0
---@param bound? number default 0.0
---@return sagan.Tensor # its first argument
function core.ops.normal(x, clock, seed, stream, mean, std, bound) end

--- Fills x (i32) with whole numbers in [low, high), without modulo bias worth measuring (a 64-bit multiply).
---@param x sagan.Tensor written in place
---@param clock sagan.Tensor
---@param seed integer
---@param stream integer
---@param low? integer default 0
---@param high integer
---@return sagan.Tensor # its first argument
function core.ops.randint(x, clock, seed, stream, low, high) end

--- clock = clock + by, as one 64-bit number.
---@param clock sagan.Tensor written in place
---@param by? integer default 1
---@return sagan.Tensor # its first argument
function core.ops.tick(clock, by) end

--- One Adam step over a slab. hyper {6} f32: rate, beta1, beta2, eps, weight decay (decoupled), factor on g. count {2} i32 is ticked first. w -= rate * mhat / (sqrt(vhat) + eps); tf_eps: eps inside the bias correction, as TensorFlow 1.
---@param w sagan.Tensor written in place
---@param g sagan.Tensor
---@param m sagan.Tensor written in place
---@param v sagan.Tensor written in place
---@param count sagan.Tensor written in place
---@param hyper sagan.Tensor
---@param tf_eps? boolean default false
---@return sagan.Tensor # its first argument
function core.ops.adam(w, g, m, v, count, hyper, tf_eps) end

--- adam on w, then ema of target with w (clock and hyper there: average), in one pass: the same bits.
---@param w sagan.Tensor written in place
---@param g sagan.Tensor
---@param m sagan.Tensor written in place
---@param v sagan.Tensor written in place
---@param count sagan.Tensor written in place
---@param hyper sagan.Tensor
---@param target sagan.Tensor written in place
---@param clock sagan.Tensor
---@param average sagan.Tensor
---@param tf_eps? boolean default false
---@return sagan.Tensor # its first argument
function core.ops.adam_ema(w, g, m, v, count, hyper, target, clock, average, tf_eps) end

--- target = d * target + (1 - d) * source with d = hyper[0], or 0 while clock < hyper[1] (a plain copy). hyper {2} f32.
---@param target sagan.Tensor written in place
---@param source sagan.Tensor
---@param clock sagan.Tensor
---@param hyper sagan.Tensor
---@return sagan.Tensor # its first argument
function core.ops.ema(target, source, clock, hyper) end

--- Every element = value.
---@param x sagan.Tensor written in place
---@param value number
---@return sagan.Tensor # its first argument
function core.ops.fill(x, value) end

--- x = y, equal shapes and dtypes, as an op, so that it can be captured.
---@param x sagan.Tensor written in place
---@param y sagan.Tensor
---@return sagan.Tensor # its first argument
function core.ops.assign(x, y) end

--- y = y + a * x, in place.
---@param y sagan.Tensor written in place
---@param x sagan.Tensor
---@param a? number default 1.0
---@return sagan.Tensor # its first argument
function core.ops.axpy(y, x, a) end

--- ring {R,V} f32: row (clock mod R), column `column` = x {1}: how losses leave a step without a read-back.
---@param ring sagan.Tensor written in place
---@param x sagan.Tensor
---@param clock sagan.Tensor
---@param column integer
---@return sagan.Tensor # its first argument
function core.ops.record(ring, x, clock, column) end

--- u8 {N,H,W,C} -> f32 x * 2/255 - 1; flip: each image mirrored left-right with probability 1/2 by its own random number; dequantize: plus uniform [0, dequantize).
---@param x sagan.Tensor
---@param clock sagan.Tensor
---@param seed integer
---@param stream integer
---@param flip? boolean default false
---@param dequantize? number default 0.0
---@return sagan.Tensor y
function core.ops.pixels_to_float(x, clock, seed, stream, flip, dequantize) end

--- f32 in [-1,1] -> u8 floor(x * 127.5 + 128), clipped to 0..255; NaN becomes 0.
---@param x sagan.Tensor
---@return sagan.Tensor y
function core.ops.float_to_pixels(x) end

--- Converts between f32, bf16 (round to nearest even), u8 and i32 (dtype as in sag_dtype). Gradients pass between f32 and bf16 only.
---@param x sagan.Tensor
---@param dtype sagan.Dtype
---@return sagan.Tensor y
function core.ops.cast(x, dtype) end
