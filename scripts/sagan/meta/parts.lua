---@meta _
-- Made by scripts/dev/stubs.lua; do not edit.

---@class sagan.core
local core = {}
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

---@class sagan.PictureOptions
---@field mode? "half"|"symbols"|"sixel"|"kitty"|"iterm2"
---@field colors? integer 2, 16, 256 or 16777216
---@field columns? integer at most so many cells wide
---@field rows? integer at most so many cells high

---@class sagan.Terminal
---@field mode "half"|"symbols"|"sixel"|"kitty"|"iterm2"
---@field colors integer
---@field columns integer
---@field rows integer
---@field cell_width integer pixels
---@field cell_height integer pixels
---@field library string? "chafa 1.12.4"; nil in a build without it

---@class sagan.Stat
---@field type "file"|"folder"|"other"
---@field size integer
---@field mtime number

--- The card. Tensors go there by device("cuda").
---@class sagan.core.cuda
core.cuda = {}

--- Whether device "cuda" can be used, and if not why.
---@return boolean there
---@return string? reason
function core.cuda.is_available() end

--- Card, memory, compute capability and driver; "" without one.
---@return string
function core.cuda.name() end

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

--- Adds to the end of a file; private: one that it makes is its owner's alone (0600).
---@param path string
---@param text string
---@param private? boolean
---@return true? ok
---@return string? message
function core.system.append(path, text, private) end

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

--- Whether somebody holds that lock, without taking it.
---@param path string
---@return boolean? held
---@return string? message
function core.system.lock_held(path) end

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

--- The folder that relative paths begin in.
---@return string? path
---@return string? message
function core.system.working_folder() end

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

---@class sagan.Socket
local Socket = {}

--- nil if nobody waits.
---@return sagan.Socket? peer
---@return string? message
function Socket:accept() end

--- What the other side does not take yet waits; of 4 MiB too much.
---@param text string
---@return true? ok
---@return string? message
function Socket:send(text) end

--- The next message; nil if none is complete, with a message if none will come.
---@return string? text
---@return string? message
function Socket:receive() end

--- Bytes that wait for the other side to read.
---@return integer
function Socket:unsent() end

--- Ends the connection; a listener's file goes away.
function Socket:close() end

--- Messages between processes of one user. Nothing blocks but wait. nil, message, code for what the other side or the system did wrong.
---@class sagan.core.socket
core.socket = {}

--- A private file (mode 0600) of that name; it replaces a socket that is there.
---@param path string
---@return sagan.Socket? listener
---@return string? message
function core.socket.listen(path) end

--- The code "state": a socket is there, but no process listens.
---@param path string
---@return sagan.Socket? peer
---@return string? message
function core.socket.connect(path) end

--- Until some have something to receive or accept, the time is over (below 0: never) or a signal comes; sends what waits.
---@param sockets sagan.Socket[]
---@param seconds number
---@return integer? ready
---@return string? message
function core.socket.wait(sockets, seconds) end

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

--- Writes {N,H,W,C} as an animation, one picture after the other, 0.2 seconds each. Up to 256 colours are kept exactly.
---@param path string
---@param images sagan.Tensor
---@param seconds? number
---@return true? ok
---@return string? message
function core.image.write_gif(path, images, seconds) end

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

--- Draws a line with round ends and soft edges; with equal ends a disc. alpha: how much it covers, 0 to 1.
---@param image sagan.Tensor
---@param x0 integer
---@param y0 integer
---@param x1 integer
---@param y1 integer
---@param thickness? number
---@param color? sagan.Color
---@param alpha? number
---@return sagan.Tensor
function core.image.draw_line(image, x0, y0, x1, y1, thickness, color, alpha) end

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

--- Pictures as text for the terminal; sagan.show prints them.
---@class sagan.core.terminal_picture
core.terminal_picture = {}

--- What the terminal at hand can do.
---@return sagan.Terminal
function core.terminal_picture.detect() end

--- half (always there), and with libchafa symbols, sixel, kitty, iterm2.
---@return string[]
function core.terminal_picture.modes() end

--- The text that shows a picture, as large as fits; what the options leave out is the terminal's.
---@param image sagan.Tensor
---@param options? sagan.PictureOptions
---@return string? text
---@return string? message
function core.terminal_picture.render(image, options) end

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

--- All singular values of f32 {N,D}, the largest first.
---@param matrix sagan.Tensor
---@return number[]? values
---@return string? message
function core.metrics.singular_values(matrix) end

--- Precision, recall, density, coverage, in steps; options: k, inclusive.
---@param real sagan.Tensor
---@param fake sagan.Tensor
---@param options? table
---@return sagan.Neighbours? computation
---@return string? message
function core.metrics.neighbours(real, fake, options) end

--- Legs that the figure of each picture u8 {N,H,W,C} stands on; of counts shown equally often the expected one.
---@param images sagan.Tensor
---@param expected integer|integer[]
---@return integer[]
function core.metrics.legs(images, expected) end
