---@meta sagan.core
-- Made by scripts/dev/stubs.lua; do not edit.

---@alias sagan.Dtype "f32"|"bf16"|"u8"|"i32"
---@alias sagan.Device "cpu"|"cuda"
---@alias sagan.Shape integer[]|integer

---@class sagan.Options
---@field dtype? sagan.Dtype
---@field device? sagan.Device

---@class sagan.Memory
---@field live_tensors integer
---@field live_storages integer
---@field bytes_in_use integer
---@field bytes_peak integer
---@field bytes_cached integer
---@field device_allocs integer

---@class sagan.ProfileRow
---@field kernel string
---@field calls integer
---@field seconds number
---@field flops number of the direct method
---@field done number really done: fewer where a kernel saves multiplies
---@field bytes number

--- A captured function; call it without arguments.
---@class sagan.Capture
---@overload fun(): ...
---@field reset fun(self: sagan.Capture) warms up and records again
---@field mode fun(self: sagan.Capture): "eager"|"warming"|"recording"|"replaying"|"closed"
---@field close fun(self: sagan.Capture)

--- Contiguous numbers on a device. Every op whose first input is a tensor is a method too.
---@class sagan.Tensor
---@field shape integer[] a fresh table
---@field dtype sagan.Dtype
---@field device sagan.Device
---@field rank integer
---@field grad sagan.Tensor?
---@field requires_grad boolean
---@operator add(sagan.Tensor|number): sagan.Tensor
---@operator sub(sagan.Tensor|number): sagan.Tensor
---@operator mul(sagan.Tensor|number): sagan.Tensor
---@operator div(sagan.Tensor|number): sagan.Tensor
---@operator unm: sagan.Tensor
---@operator len: integer
local Tensor = {}

--- Number of elements.
---@return integer
function Tensor:numel() end

--- One dimension, counted from 1.
---@param dimension integer
---@return integer
function Tensor:size(dimension) end

--- The value of a tensor with one element.
---@return number
function Tensor:item() end

--- One element; indices count from 1.
---@param i integer
---@param ... integer
---@return number
function Tensor:get(i, ...) end

--- The values as nested tables.
---@return table
function Tensor:totable() end

--- The raw contents.
---@return string
function Tensor:bytes() end

--- Replaces the contents.
---@param bytes string
---@return sagan.Tensor
function Tensor:set_bytes(bytes) end

--- A view of another shape; one dimension may be -1.
---@param shape sagan.Shape
---@return sagan.Tensor
function Tensor:reshape(shape) end

--- A view of the elements from `start` on (counted from 1).
---@param start integer
---@param shape sagan.Shape
---@return sagan.Tensor
function Tensor:part(start, shape) end

--- A view of count entries of the leading dimension.
---@param first integer
---@param count? integer
---@return sagan.Tensor
function Tensor:rows(first, count) end

--- The same data outside the tape.
---@return sagan.Tensor
function Tensor:detach() end

--- A copy, outside the tape.
---@return sagan.Tensor
function Tensor:clone() end

--- Another dtype or device (a copy outside the tape), or itself.
---@param target sagan.Dtype|sagan.Device
---@return sagan.Tensor
function Tensor:to(target) end

--- Copies the values in.
---@param source sagan.Tensor|table|number
---@return sagan.Tensor
function Tensor:copy_(source) end

--- Every element = value.
---@param value number
---@return sagan.Tensor
function Tensor:fill_(value) end

--- Every element = 0.
---@return sagan.Tensor
function Tensor:zero_() end

--- Makes it a leaf that collects gradients in .grad.
---@return sagan.Tensor
function Tensor:requires_grad_() end

--- No gradient is recorded for it and its views until freeze(false).
---@param on? boolean
---@return sagan.Tensor
function Tensor:freeze(on) end

--- The next gradient overwrites.
---@return sagan.Tensor
function Tensor:zero_grad() end

--- Gives the memory of a leaf's gradient back; .grad is 0 from then on, and takes memory again when it is read or added to.
---@return sagan.Tensor
function Tensor:release_grad() end

--- Gradients of everything recorded; without dy from a tensor with one element.
---@param dy? (sagan.Tensor|number)
function Tensor:backward(dy) end

--- Drops the data now; the tensor cannot be used any more.
function Tensor:release() end

--- No scope releases it.
---@return sagan.Tensor
function Tensor:keep() end

--- Convolution. x {N,H,W,C}, w {K,R,S,C}, b {K} -> y {N,P,Q,K}, P = (H + 2 pad_h - R) / stride + 1.
---@param w sagan.Tensor
---@param b? sagan.Tensor
---@param stride? integer default 1
---@param pad_h? integer default 0
---@param pad_w? integer default 0
---@return sagan.Tensor y
function Tensor:conv2d(w, b, stride, pad_h, pad_w) end

--- Nearest x2 upsampling, then 3x3 convolution with padding 1, fused: 16/36 of the multiplies. x {N,H,W,C}, w {K,3,3,C}, b {K} -> y {N,2H,2W,K}.
---@param w sagan.Tensor
---@param b? sagan.Tensor
---@return sagan.Tensor y
function Tensor:upconv(w, b) end

--- 3x3 convolution with padding 1, then 2x2 mean pooling, fused: 16/36 of the multiplies. x {N,H,W,C}, H and W even, w {K,3,3,C}, b {K} -> y {N,H/2,W/2,K}.
---@param w sagan.Tensor
---@param b? sagan.Tensor
---@return sagan.Tensor y
function Tensor:convpool(w, b) end

--- Matrix product of {M,K} and {K,N}, or batched {B,M,K} and {B,K,N}; a transposed operand is stored the other way round.
---@param b sagan.Tensor
---@param trans_a? boolean default false
---@param trans_b? boolean default false
---@return sagan.Tensor y
function Tensor:matmul(b, trans_a, trans_b) end

--- y = x w^T + b. x {..., I} seen as rows, w {O,I}, b {O} -> y {..., O}.
---@param w sagan.Tensor
---@param b? sagan.Tensor
---@return sagan.Tensor y
function Tensor:linear(w, b) end

--- max(x, 0); the gradient at 0 is 0.
---@return sagan.Tensor y
function Tensor:relu() end

--- x where x > 0, else slope * x.
---@param slope? number default 0.2
---@return sagan.Tensor y
function Tensor:leaky_relu(slope) end

--- Hyperbolic tangent.
---@return sagan.Tensor y
function Tensor:tanh() end

--- 1 / (1 + exp(-x)).
---@return sagan.Tensor y
function Tensor:sigmoid() end

--- log(1 + exp(x)), without overflow.
---@return sagan.Tensor y
function Tensor:softplus() end

--- Exponential.
---@return sagan.Tensor y
function Tensor:exp() end

--- Natural logarithm.
---@return sagan.Tensor y
function Tensor:log() end

--- Square root.
---@return sagan.Tensor y
function Tensor:sqrt() end

--- The square, x * x.
---@return sagan.Tensor y
function Tensor:square() end

--- Absolute value; the gradient at 0 is 0.
---@return sagan.Tensor y
function Tensor:abs() end

--- a * x + b with numbers a and b.
---@param a? number default 1.0
---@param b? number default 0.0
---@return sagan.Tensor y
function Tensor:scale(a, b) end

--- a + b. b has a's shape, or is {1}, or has the trailing dimensions of a and repeats.
---@param b sagan.Tensor
---@return sagan.Tensor y
function Tensor:add(b) end

--- a - b; b broadcasts as in add.
---@param b sagan.Tensor
---@return sagan.Tensor y
function Tensor:sub(b) end

--- a * b; b broadcasts as in add.
---@param b sagan.Tensor
---@return sagan.Tensor y
function Tensor:mul(b) end

--- a / b; b broadcasts as in add.
---@param b sagan.Tensor
---@return sagan.Tensor y
function Tensor:div(b) end

--- y = gamma * o + x, the gate of self-attention (paper, eq. 3). x and o equal shapes, gamma {1}.
---@param o sagan.Tensor
---@param gamma sagan.Tensor
---@return sagan.Tensor y
function Tensor:gated_add(o, gamma) end

--- Batch normalisation over all but the last dimension, optionally with a fused ReLU. gain, bias {C}. train: batch statistics, and the running ones move by momentum (unbiased variance); else the running statistics. The factor is gain + gain_offset.
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
function Tensor:batch_norm(gain, bias, running_mean, running_var, train, momentum, eps, relu, gain_offset) end

--- Class-conditional batch normalisation: gain and bias are tables {classes,C}, labels {N} i32 picks the row of each image. x {N,H,W,C}. Else as batch_norm.
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
function Tensor:cond_batch_norm(gain, bias, labels, running_mean, running_var, train, momentum, eps, relu, gain_offset) end

--- Nearest x2. x {N,H,W,C} -> y {N,2H,2W,C}.
---@return sagan.Tensor y
function Tensor:upsample() end

--- x + nearest x2 of s in one pass: a residual block that doubles the size. x {N,2H,2W,C}, s {N,H,W,C} -> y {N,2H,2W,C}.
---@param s sagan.Tensor
---@return sagan.Tensor y
function Tensor:add_upsampled(s) end

--- Mean over size x size windows. include_pad: zero padding counts in the divisor (Inception's 2015 graph leaves it out).
---@param size? integer default 2
---@param stride? integer default 2
---@param pad? integer default 0
---@param include_pad? boolean default true
---@return sagan.Tensor y
function Tensor:mean_pool(size, stride, pad, include_pad) end

--- Maximum over size x size windows; the first of equal values gets the gradient.
---@param size? integer default 2
---@param stride? integer default 2
---@param pad? integer default 0
---@return sagan.Tensor y
function Tensor:max_pool(size, stride, pad) end

--- Sum over H and W. x {N,H,W,C} -> y {N,C}.
---@return sagan.Tensor y
function Tensor:global_sum_pool() end

--- a then b along axis; the other dimensions are equal.
---@param b sagan.Tensor
---@param axis? integer counted from 1 default 1
---@return sagan.Tensor y
function Tensor:concat(b, axis) end

--- length elements from start along axis.
---@param axis integer counted from 1
---@param start integer counted from 1
---@param length integer
---@return sagan.Tensor y
function Tensor:slice(axis, start, length) end

--- y's dimension i is x's dimension d_i.
---@param d0? integer counted from 1 default 1
---@param d1? integer counted from 1 default 2
---@param d2? integer counted from 1 default 3
---@param d3? integer counted from 1 default 4
---@return sagan.Tensor y
function Tensor:permute(d0, d1, d2, d3) end

--- Sum over one axis, which disappears; without one over everything -> {1}. Partial sums in a fixed order.
---@param axis? integer counted from 1
---@return sagan.Tensor y
function Tensor:sum(axis) end

--- Mean, axis as in sum.
---@param axis? integer counted from 1
---@return sagan.Tensor y
function Tensor:mean(axis) end

--- L2 norm of everything -> {1}; the gradient at 0 is 0.
---@return sagan.Tensor y
function Tensor:norm() end

--- Largest value -> {1}; NaN if there is one.
---@return sagan.Tensor y
function Tensor:max() end

--- Smallest value -> {1}; NaN if there is one.
---@return sagan.Tensor y
function Tensor:min() end

--- Index of the largest value along the last dimension (counted from 0), i32; it disappears.
---@return sagan.Tensor y
function Tensor:argmax() end

--- How many values are NaN or infinite -> {1} f32.
---@return sagan.Tensor y
function Tensor:count_nonfinite() end

--- Softmax over the last dimension.
---@return sagan.Tensor y
function Tensor:softmax() end

--- Logarithm of softmax over the last dimension.
---@return sagan.Tensor y
function Tensor:log_softmax() end

--- o_j = sum_i softmax_i(scale * q_j . k_i) v_i; memory O(N): the map is never stored. q {B,Nq,D}, k {B,Nk,D}, v {B,Nk,E} -> o {B,Nq,E}. Paper eq. 1-2 with q = g(x), k = f(x), v = h(x), scale 1.
---@param k sagan.Tensor
---@param v sagan.Tensor
---@param scale? number default 1.0
---@return sagan.Tensor o
function Tensor:attention(k, v, scale) end

--- The softmax rows of chosen query points. q {B,Nq,D}, k {B,Nk,D}, queries {M} i32 (counted from 0) -> p {B,M,Nk}.
---@param k sagan.Tensor
---@param queries sagan.Tensor
---@param scale? number default 1.0
---@return sagan.Tensor p
function Tensor:attention_map(k, queries, scale) end

--- Mean over batch and queries of the entropy (nats) and of the mean attended distance in positions of a map `width` wide (queries and keys on grids of equal extent) -> s {2}.
---@param k sagan.Tensor
---@param width integer
---@param scale? number default 1.0
---@return sagan.Tensor s
function Tensor:attention_stats(k, width, scale) end

--- Divides each layer's matrix in the slab w {n} by its largest singular value, all layers in one call. layers {L,5} i32: offset, rows, columns, offset in u, offset in v. iterations power steps from u; u and v are written back only if update. sigma {L} is always written. Gradient: u, v constants, or through the iterations. What no layer covers is copied.
---@param u sagan.Tensor written in place
---@param v sagan.Tensor written in place
---@param sigma sagan.Tensor written in place
---@param layers sagan.Tensor
---@param iterations? integer default 1
---@param eps? number default 1e-12
---@param update? boolean default true
---@param through? boolean default false
---@return sagan.Tensor wn
function Tensor:spectral_norm(u, v, sigma, layers, iterations, eps, update, through) end

--- Rows of a table. table {V,D}, index {N} i32, counted from 0 -> y {N,D}.
---@param index sagan.Tensor
---@return sagan.Tensor y
function Tensor:embedding(index) end

--- mean(max(0, 1 - real)) + mean(max(0, 1 + fake)) (paper eq. 4).
---@param fake sagan.Tensor
---@return sagan.Tensor y
function Tensor:hinge_d(fake) end

--- -mean(fake) (paper eq. 4).
---@return sagan.Tensor y
function Tensor:hinge_g() end

--- mean(softplus(-real)) + mean(softplus(fake)): the original GAN loss on logits.
---@param fake sagan.Tensor
---@return sagan.Tensor y
function Tensor:bce_d(fake) end

--- mean(softplus(-fake)): the non-saturating generator loss.
---@return sagan.Tensor y
function Tensor:bce_g() end

--- mean(fake) - mean(real).
---@param fake sagan.Tensor
---@return sagan.Tensor y
function Tensor:wasserstein_d(fake) end

--- -mean(fake).
---@return sagan.Tensor y
function Tensor:wasserstein_g() end

--- Mean of -log softmax(logits)[label]. logits {N,K}, labels {N} i32, counted from 0.
---@param labels sagan.Tensor
---@return sagan.Tensor y
function Tensor:cross_entropy(labels) end

--- Fills x with uniform numbers in [low, high).
---@param clock sagan.Tensor
---@param seed integer
---@param stream integer
---@param low? number default 0.0
---@param high? number default 1.0
---@return sagan.Tensor # its first argument
function Tensor:uniform(clock, seed, stream, low, high) end

--- Fills x with normal numbers; bound > 0: truncated to mean +- bound * std by taking the quantile of a uniform number.
---@param clock sagan.Tensor
---@param seed integer
---@param stream integer
---@param mean? number default 0.0
---@param std? number default 1.0
---@param bound? number default 0.0
---@return sagan.Tensor # its first argument
function Tensor:normal(clock, seed, stream, mean, std, bound) end

--- Fills x (i32) with whole numbers in [low, high), without modulo bias worth measuring (a 64-bit multiply).
---@param clock sagan.Tensor
---@param seed integer
---@param stream integer
---@param low? integer default 0
---@param high integer
---@return sagan.Tensor # its first argument
function Tensor:randint(clock, seed, stream, low, high) end

--- clock = clock + by, as one 64-bit number.
---@param by? integer default 1
---@return sagan.Tensor # its first argument
function Tensor:tick(by) end

--- One Adam step over a slab. hyper {6} f32: rate, beta1, beta2, eps, weight decay (decoupled), factor on g. count {2} i32 is ticked first. w -= rate * mhat / (sqrt(vhat) + eps); tf_eps: eps inside the bias correction, as TensorFlow 1.
---@param g sagan.Tensor
---@param m sagan.Tensor written in place
---@param v sagan.Tensor written in place
---@param count sagan.Tensor written in place
---@param hyper sagan.Tensor
---@param tf_eps? boolean default false
---@return sagan.Tensor # its first argument
function Tensor:adam(g, m, v, count, hyper, tf_eps) end

--- adam on w, then ema of target with w (clock and hyper there: average), in one pass: the same bits.
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
function Tensor:adam_ema(g, m, v, count, hyper, target, clock, average, tf_eps) end

--- target = d * target + (1 - d) * source with d = hyper[0], or 0 while clock < hyper[1] (a plain copy). hyper {2} f32.
---@param source sagan.Tensor
---@param clock sagan.Tensor
---@param hyper sagan.Tensor
---@return sagan.Tensor # its first argument
function Tensor:ema(source, clock, hyper) end

--- Every element = value.
---@param value number
---@return sagan.Tensor # its first argument
function Tensor:fill(value) end

--- x = y, equal shapes and dtypes, as an op, so that it can be captured.
---@param y sagan.Tensor
---@return sagan.Tensor # its first argument
function Tensor:assign(y) end

--- y = y + a * x, in place.
---@param x sagan.Tensor
---@param a? number default 1.0
---@return sagan.Tensor # its first argument
function Tensor:axpy(x, a) end

--- ring {R,V} f32: row (clock mod R), column `column` = x {1}: how losses leave a step without a read-back.
---@param x sagan.Tensor
---@param clock sagan.Tensor
---@param column integer
---@return sagan.Tensor # its first argument
function Tensor:record(x, clock, column) end

--- u8 {N,H,W,C} -> f32 x * 2/255 - 1; flip: each image mirrored left-right with probability 1/2 by its own random number; dequantize: plus uniform [0, dequantize).
---@param clock sagan.Tensor
---@param seed integer
---@param stream integer
---@param flip? boolean default false
---@param dequantize? number default 0.0
---@return sagan.Tensor y
function Tensor:pixels_to_float(clock, seed, stream, flip, dequantize) end

--- f32 in [-1,1] -> u8 floor(x * 127.5 + 128), clipped to 0..255; NaN becomes 0.
---@return sagan.Tensor y
function Tensor:float_to_pixels() end

--- Converts between f32, bf16 (round to nearest even), u8 and i32 (dtype as in sag_dtype).
---@param dtype sagan.Dtype
---@return sagan.Tensor y
function Tensor:cast(dtype) end

---@class sagan.core
---@field version string
---@field tensor_methods table
local core = {}

--- A tensor from a number or nested tables: tensor{{1, 2}, {3, 4}}.
---@param values number|table
---@param options? sagan.Options
---@return sagan.Tensor
function core.tensor(values, options) end

--- Zeros. The shape may also be plain numbers: zeros(2, 3).
---@param shape sagan.Shape
---@param options? sagan.Options
---@return sagan.Tensor
function core.zeros(shape, options) end

--- Ones; shape as in zeros.
---@param shape sagan.Shape
---@param options? sagan.Options
---@return sagan.Tensor
function core.ones(shape, options) end

--- Every element = value.
---@param shape integer[]
---@param value number
---@param options? sagan.Options
---@return sagan.Tensor
function core.full(shape, value, options) end

--- Contents undefined; shape as in zeros.
---@param shape sagan.Shape
---@param options? sagan.Options
---@return sagan.Tensor
function core.empty(shape, options) end

--- 0, 1, ... n-1.
---@param n integer
---@param options? sagan.Options
---@return sagan.Tensor
function core.arange(n, options) end

--- Whether value is a tensor (released or not).
---@param value any
---@return boolean
function core.is_tensor(value) end

--- f(...) without recording gradients; back to what was before at its end, also after an error.
---@param f function
---@param ... any
---@return any ...
function core.no_grad(f, ...) end

--- f(...); tensors made meanwhile are released at its end, but for those that it returns (also in tables) or that had keep() called.
---@param f function
---@param ... any
---@return any ...
function core.scope(f, ...) end

--- f(...), of which the tape keeps no activation but what f reads from outside: backward computes them again, with the same bits. Best around scope, so that f's own hold on them ends: recompute(scope, f, ...). State that ops write (running statistics, u and v) moves once.
---@param f function
---@param ... any
---@return any ...
function core.recompute(f, ...) end

--- A callable that runs f: once to warm up, once recording, then by replaying the recording (CUDA); on the CPU by calling f.
---@param f function
---@return sagan.Capture
function core.capture(f) end

--- false inside no_grad.
---@return boolean
function core.is_recording() end

--- Whether gradients of intermediate tensors outlive backward, until the tape is cleared.
---@param on boolean
function core.retain_grads(on) end

--- Forgets what was recorded, for a forward pass that no backward will follow.
function core.clear_tape() end

--- The device of new tensors; with a name, sets it.
---@param name? sagan.Device
---@return sagan.Device
function core.device(name) end

--- The devices that this machine offers.
---@return sagan.Device[]
function core.devices() end

--- The SIMD level of the CPU kernels.
---@return string
function core.isa() end

--- CPU threads in use; with n, sets them (0: all cores). Results do not depend on it.
---@param n? integer
---@return integer
function core.threads(n) end

--- Whether 3x3 convolutions on the CPU may use Winograd's algorithm; with on, sets it. It changes the roundings.
---@param on? boolean
---@return boolean
function core.winograd(on) end

--- Waits for the device.
function core.synchronize() end

--- The module path that error messages carry; returns the one before.
---@param path? string
---@return string?
function core.set_path(path) end

--- The module path in use.
---@return string?
function core.path() end

--- Device memory of the current device.
---@return sagan.Memory
function core.memory() end

--- bytes_peak starts again from what is in use.
function core.reset_peak() end

--- Gives cached device memory back.
function core.trim() end

--- What is alive, over all devices; for tests.
---@return {tensors: integer, storages: integer, host_blocks: integer, tape: integer}
function core.live() end

--- The n-th allocation from now fails, once; 0: none. For tests.
---@param n integer
function core.fail_allocation(n) end

--- Starts (from zero) or stops timing kernels.
---@param on boolean
function core.profile(on) end

--- Calls, seconds, arithmetic and traffic of each kernel that ran.
---@return sagan.ProfileRow[]
function core.profile_rows() end

--- Names of all ops, in the order of ops.def.
---@return string[]
function core.op_names() end

--- Signature and description of an op.
---@param name string
---@return table
function core.op_info(name) end

---@class sagan.ops
core.ops = {}

--- Convolution. x {N,H,W,C}, w {K,R,S,C}, b {K} -> y {N,P,Q,K}, P = (H + 2 pad_h - R) / stride + 1.
---@param x sagan.Tensor
---@param w sagan.Tensor
---@param b? sagan.Tensor
---@param stride? integer default 1
---@param pad_h? integer default 0
---@param pad_w? integer default 0
---@return sagan.Tensor y
function core.ops.conv2d(x, w, b, stride, pad_h, pad_w) end

--- Nearest x2 upsampling, then 3x3 convolution with padding 1, fused: 16/36 of the multiplies. x {N,H,W,C}, w {K,3,3,C}, b {K} -> y {N,2H,2W,K}.
---@param x sagan.Tensor
---@param w sagan.Tensor
---@param b? sagan.Tensor
---@return sagan.Tensor y
function core.ops.upconv(x, w, b) end

--- 3x3 convolution with padding 1, then 2x2 mean pooling, fused: 16/36 of the multiplies. x {N,H,W,C}, H and W even, w {K,3,3,C}, b {K} -> y {N,H/2,W/2,K}.
---@param x sagan.Tensor
---@param w sagan.Tensor
---@param b? sagan.Tensor
---@return sagan.Tensor y
function core.ops.convpool(x, w, b) end

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

--- x + nearest x2 of s in one pass: a residual block that doubles the size. x {N,2H,2W,C}, s {N,H,W,C} -> y {N,2H,2W,C}.
---@param x sagan.Tensor
---@param s sagan.Tensor
---@return sagan.Tensor y
function core.ops.add_upsampled(x, s) end

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

--- Divides each layer's matrix in the slab w {n} by its largest singular value, all layers in one call. layers {L,5} i32: offset, rows, columns, offset in u, offset in v. iterations power steps from u; u and v are written back only if update. sigma {L} is always written. Gradient: u, v constants, or through the iterations. What no layer covers is copied.
---@param w sagan.Tensor
---@param u sagan.Tensor written in place
---@param v sagan.Tensor written in place
---@param sigma sagan.Tensor written in place
---@param layers sagan.Tensor
---@param iterations? integer default 1
---@param eps? number default 1e-12
---@param update? boolean default true
---@param through? boolean default false
---@return sagan.Tensor wn
function core.ops.spectral_norm(w, u, v, sigma, layers, iterations, eps, update, through) end

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

--- Converts between f32, bf16 (round to nearest even), u8 and i32 (dtype as in sag_dtype).
---@param x sagan.Tensor
---@param dtype sagan.Dtype
---@return sagan.Tensor y
function core.ops.cast(x, dtype) end

---@alias sagan.Color integer|integer[]

---@class sagan.DatasetOptions
---@field resolution? integer
---@field channels? integer
---@field split? "train"|"test"
---@field limit? integer
---@field max_bytes? integer
---@field threads? integer
---@field progress? fun(done: integer, total: integer): boolean?

---@class sagan.LoaderOptions
---@field batch integer
---@field seed integer
---@field slots? integer
---@field workers? integer

---@class sagan.Stat
---@field type "file"|"folder"|"other"
---@field size integer
---@field mtime number

---@class sagan.Lock
local Lock = {}

--- Gives the lock back.
function Lock:close() end

--- Time, files, folders, the terminal, Ctrl-C. File functions return nil, message, code when they fail.
---@class sagan.core.system
core.system = {}

--- Seconds of a clock that only goes forward.
---@return number
function core.system.now() end

--- Seconds since 1970.
---@return number
function core.system.time() end

--- Makes a folder with its parents.
---@param path string
---@return true? ok
---@return string? message
function core.system.mkdir(path) end

--- Names in a folder, sorted.
---@param folder string
---@return string[]? names
---@return string? message
function core.system.list(folder) end

--- What a path is.
---@param path string
---@return sagan.Stat? stat
---@return string? message
function core.system.stat(path) end

--- Removes a file or an empty folder.
---@param path string
---@return true? ok
---@return string? message
function core.system.remove(path) end

--- Renames.
---@param from string
---@param to string
---@return true? ok
---@return string? message
function core.system.rename(from, to) end

--- Writes the whole file or leaves the old one.
---@param path string
---@param text string
---@return true? ok
---@return string? message
function core.system.write_atomic(path, text) end

--- Adds to the end of a file.
---@param path string
---@param text string
---@return true? ok
---@return string? message
function core.system.append(path, text) end

--- The whole file.
---@param path string
---@return string? text
---@return string? message
function core.system.read(path) end

--- Bytes that may still be written there.
---@param path string
---@return integer? bytes
---@return string? message
function core.system.free_disk(path) end

--- An exclusive lock, held until closed.
---@param path string
---@return sagan.Lock? lock
---@return string? message
function core.system.lock(path) end

--- Whether a file descriptor is a terminal.
---@param fd integer
---@return boolean
function core.system.isatty(fd) end

--- Columns; nil without a terminal.
---@return integer?
function core.system.terminal_width() end

--- Number of this process.
---@return integer
function core.system.getpid() end

--- Name of the machine.
---@return string
function core.system.hostname() end

--- Cores of the machine.
---@return integer
function core.system.cpu_count() end

--- Cores that this process may use.
---@return integer
function core.system.nproc() end

--- The program that runs.
---@return string? path
---@return string? message
function core.system.executable_path() end

--- A variable of the environment.
---@param name string
---@return string?
function core.system.env(name) end

--- While on, Ctrl-C only makes interrupted() true.
---@param on boolean
function core.system.catch_interrupts(on) end

--- true once after Ctrl-C.
---@return boolean
function core.system.interrupted() end

--- Named tensors in files. A missing or broken file is nil, message, code.
---@class sagan.core.safetensors
core.safetensors = {}

--- All tensors of a file.
---@param path string
---@return table<string,sagan.Tensor>? tensors
---@return table<string,string>|string metadata_or_message
function core.safetensors.load(path) end

--- Names, dtypes and shapes, without reading the tensors.
---@param path string
---@return table<string,table>? entries
---@return table<string,string>|string metadata_or_message
function core.safetensors.header(path) end

--- All or nothing; the same bytes for the same content.
---@param path string
---@param tensors table<string,sagan.Tensor>
---@param metadata? table<string,string>
---@return true? ok
---@return string? message
function core.safetensors.save(path, tensors, metadata) end

--- Copies into tensors that exist; nothing changes when names or shapes differ.
---@param path string
---@param tensors table<string,sagan.Tensor>
---@return true? ok
---@return table<string,string>|string metadata_or_message
function core.safetensors.load_into(path, tensors) end

--- PyTorch state dicts, read as data: nothing in them is run. Layouts are the file's. A missing or broken file is nil, message, code.
---@class sagan.core.pth
core.pth = {}

--- All tensors of a file: F32, F16, F64 as f32, BF16 as bf16, I32 and I64 as i32, U8 as u8.
---@param path string
---@return table<string,sagan.Tensor>? tensors
---@return string? message
function core.pth.load(path) end

--- Names, dtypes and shapes of what load would give, without reading the tensors.
---@param path string
---@return table<string,table>? entries
---@return string? message
function core.pth.header(path) end

--- SHA-256 digests as 64 hexadecimal digits.
---@class sagan.core.sha256
core.sha256 = {}

--- Of a string.
---@param text string
---@return string
function core.sha256.text(text) end

--- Of a file.
---@param path string
---@return string? digest
---@return string? message
function core.sha256.file(path) end

--- Pictures as u8 tensors {H,W,C} or {N,H,W,C}. Positions are x, y and count from 1; a colour is {r, g, b} or a number, 0 to 255.
---@class sagan.core.image
core.image = {}

--- A PNG, JPEG or BMP file.
---@param path string
---@param channels? integer
---@return sagan.Tensor? image
---@return string? message
function core.image.read(path, channels) end

--- The same from memory; the name is for the message.
---@param bytes string
---@param channels? integer
---@param name? string
---@return sagan.Tensor? image
---@return string? message
function core.image.decode(bytes, channels, name) end

--- Writes a PNG file.
---@param path string
---@param image sagan.Tensor
---@return true? ok
---@return string? message
function core.image.write(path, image) end

--- The bytes of a PNG file.
---@param image sagan.Tensor
---@return string
function core.image.encode_png(image) end

--- Antialiased, as Pillow's BILINEAR.
---@param images sagan.Tensor
---@param height integer
---@param width integer
---@return sagan.Tensor
function core.image.resize(images, height, width) end

--- The middle; without a size the largest square.
---@param images sagan.Tensor
---@param height? integer
---@param width? integer
---@return sagan.Tensor
function core.image.crop_center(images, height, width) end

--- To grey (1) or RGB (3).
---@param images sagan.Tensor
---@param channels integer
---@return sagan.Tensor
function core.image.convert(images, channels) end

--- Every pixel becomes factor x factor.
---@param images sagan.Tensor
---@param factor integer
---@return sagan.Tensor
function core.image.enlarge(images, factor) end

--- A plain picture.
---@param height integer
---@param width integer
---@param channels integer
---@param color? sagan.Color
---@return sagan.Tensor
function core.image.blank(height, width, channels, color) end

--- Many pictures as one.
---@param images sagan.Tensor
---@param columns integer
---@param pad? integer
---@param color? sagan.Color
---@return sagan.Tensor
function core.image.grid(images, columns, pad, color) end

--- f32 {h,w} or {N,h,w} in colours, dark blue to yellow.
---@param values sagan.Tensor
---@param low? number
---@param high? number
---@return sagan.Tensor
function core.image.heatmap(values, low, high) end

--- (1 - alpha) a + alpha b.
---@param a sagan.Tensor
---@param b sagan.Tensor
---@param alpha number
---@return sagan.Tensor
function core.image.blend(a, b, alpha) end

--- Draws a picture into another.
---@param image sagan.Tensor
---@param what sagan.Tensor
---@param x integer
---@param y integer
---@return sagan.Tensor
function core.image.paste(image, what, x, y) end

--- Draws a frame.
---@param image sagan.Tensor
---@param x integer
---@param y integer
---@param width integer
---@param height integer
---@param thickness? integer
---@param color? sagan.Color
---@return sagan.Tensor
function core.image.draw_rect(image, x, y, width, height, thickness, color) end

--- Draws a cross.
---@param image sagan.Tensor
---@param x integer
---@param y integer
---@param radius integer
---@param color? sagan.Color
---@return sagan.Tensor
function core.image.draw_cross(image, x, y, radius, color) end

--- Writes letters of 5 x 7 points, times scale.
---@param image sagan.Tensor
---@param x integer
---@param y integer
---@param text string
---@param scale? integer
---@param color? sagan.Color
---@return sagan.Tensor
function core.image.text(image, x, y, text, scale, color) end

--- The room that text takes.
---@param text string
---@param scale? integer
---@return integer width
---@return integer height
function core.image.text_size(text, scale) end

--- Pictures to the Inception network's input; each rule is that of a program in the field, and their scores do not compare.
---@class sagan.core.resizer
core.resizer = {}

--- u8 {N,H,W,1 or 3} -> f32 {N,side,side,3} in [-1, 1]; side is 299. tf1: TensorFlow 1's bilinear; torch: bilinear with half-pixel centres; clean: Pillow's antialiased bicubic on floats.
---@param images sagan.Tensor
---@param rule "tf1"|"torch"|"clean"
---@param side? integer
---@return sagan.Tensor
function core.resizer.run(images, rule, side) end

--- The rules.
---@return string[]
function core.resizer.names() end

---@class sagan.EventWriter
local EventWriter = {}

--- One point of a curve.
---@param tag string
---@param value number
---@param step integer
---@param wall? number
---@return true? ok
---@return string? message
function EventWriter:scalar(tag, value, step, wall) end

--- One picture.
---@param tag string
---@param png string
---@param height integer
---@param width integer
---@param channels integer
---@param step integer
---@param wall? number
---@return true? ok
---@return string? message
function EventWriter:image(tag, png, height, width, channels, step, wall) end

--- Everything so far reaches the file.
---@return true? ok
---@return string? message
function EventWriter:flush() end

--- Flushes and closes.
---@return true? ok
---@return string? message
function EventWriter:close() end

--- TensorBoard event files.
---@class sagan.core.events
core.events = {}

--- A file, or a folder whose newest event file goes on.
---@param path string
---@param append? boolean
---@return sagan.EventWriter? writer
---@return string? message
function core.events.open(path, append) end

---@class sagan.Dataset
---@field count integer
---@field height integer
---@field width integer
---@field channels integer
---@field classes integer
---@field class_names string[]
---@field name string
---@field spec string
---@field skipped integer
local Dataset = {}

--- One picture {H,W,C} and its label.
---@param i integer
---@return sagan.Tensor image
---@return integer label
function Dataset:get(i) end

--- One label.
---@param i integer
---@return integer
function Dataset:label(i) end

--- How many legs the i-th drawn quadruped shows.
---@param i integer
---@return integer?
function Dataset:legs(i) end

--- Chosen pictures.
---@param indices integer[]
---@return sagan.Tensor images
---@return sagan.Tensor labels
function Dataset:batch(indices) end

--- Pictures in each class.
---@return integer[]
function Dataset:histogram() end

--- A fingerprint of the content.
---@return string
function Dataset:hash() end

--- What makes training on it pointless: one class only, constant pictures.
---@return string?
function Dataset:check() end

--- Prepares batches ahead in a thread.
---@param options sagan.LoaderOptions
---@return sagan.Loader
function Dataset:loader(options) end

--- Gives its memory back.
function Dataset:close() end

---@class sagan.Loader
local Loader = {}

--- Copies the batch of that number (from 0) into the tensors.
---@param step integer
---@param images sagan.Tensor
---@param labels? sagan.Tensor
function Loader:fill(step, images, labels) end

--- Ends its thread.
function Loader:close() end

--- Data sets and their loaders. Images count from 1, labels and steps from 0.
---@class sagan.core.dataset
core.dataset = {}

--- auto, fashion-mnist, idx:, cifar10:, folder:, pack:, quadrupeds[:count], or a path.
---@param spec string
---@param options? sagan.DatasetOptions
---@return sagan.Dataset? dataset
---@return string? message
function core.dataset.open(spec, options) end

--- Writes a data set, decoded, as one file.
---@param source sagan.Dataset|string
---@param path string
---@param options? sagan.DatasetOptions
---@return integer? count
---@return string? message
function core.dataset.pack(source, path, options) end

---@class sagan.Moments
local Moments = {}

--- Adds rows f32 {N,D}; all or none, and a refused batch spoils the stream.
---@param features sagan.Tensor
---@return sagan.Moments? self
---@return string? message
function Moments:add(features) end

--- Adds the other's rows.
---@param other sagan.Moments
---@return sagan.Moments? self
---@return string? message
function Moments:merge(other) end

--- Rows so far.
---@return integer
function Moments:count() end

--- Features of a row; 0 before the first.
---@return integer
function Moments:width() end

--- f64 as u8 {D,8} and {D(D+1)/2,8}: the lower triangle, row after row.
---@return sagan.Tensor? mean
---@return sagan.Tensor|string scatter_or_message
function Moments:export() end

--- Gives its memory back.
function Moments:close() end

---@class sagan.Neighbours
local Neighbours = {}

--- Does one piece; false when all is done.
---@return boolean
function Neighbours:step() end

--- How far it is.
---@return integer done
---@return integer total
function Neighbours:progress() end

--- precision, recall, density, coverage, repeated_real, repeated_fake.
---@return table
function Neighbours:result() end

--- Gives its memory back.
function Neighbours:close() end

--- Scores from features f32 {N,D}; sagan.metrics is the documented face. Unfit numbers are nil, message, code.
---@class sagan.core.metrics
core.metrics = {}

--- Refuses NaN and infinity, naming row and column.
---@param features sagan.Tensor
---@param what? string
---@return true? ok
---@return string? message
function core.metrics.check(features, what) end

--- An empty stream of rows.
---@return sagan.Moments
function core.metrics.moments() end

--- What export gave, as moments again.
---@param n integer
---@param mean sagan.Tensor
---@param scatter sagan.Tensor
---@return sagan.Moments? moments
---@return string? message
function core.metrics.import(n, mean, scatter) end

--- The squared Frechet distance and its terms.
---@param a sagan.Moments
---@param b sagan.Moments
---@return number? distance
---@return table|string terms_or_message
function core.metrics.frechet(a, b) end

--- The score of each split; options: splits, order, shuffle.
---@param logits sagan.Tensor
---@param options? table
---@return number[]? scores
---@return string? message
function core.metrics.inception_score(logits, options) end

--- Unbiased MMD^2 of one subset (from 0); options: size, degree, gamma, coef, seed.
---@param x sagan.Tensor
---@param y sagan.Tensor
---@param subset integer
---@param options? table
---@return number? mmd2
---@return string? message
function core.metrics.kid_subset(x, y, subset, options) end

--- Precision, recall, density, coverage, in steps; options: k, inclusive.
---@param real sagan.Tensor
---@param fake sagan.Tensor
---@param options? table
---@return sagan.Neighbours? computation
---@return string? message
function core.metrics.neighbours(real, fake, options) end

return core
