-- luacheck: no max line length (tables of one line an entry)
--- What the parts of sagan.core offer (system, safetensors, image and the others in parts.order), for
-- scripts/dev/stubs.lua.
-- Functions: { name, "parameter:type ...", "returns", "what it does" }; a type that ends in ? may be left out; returns are
-- separated by semicolons.
-- Classes: { name, fields = {{ name, type, note }}, methods = functions }.
local parts = {}

parts.cuda = {
    doc = "The card. Tensors go there by device(\"cuda\").",
    functions = {
        { "is_available", "", "boolean there;string? reason", "Whether device \"cuda\" can be used, and if not why." },
        { "name", "", "string", "Card, memory, compute capability and driver; \"\" without one." },
    },
}

parts.system = {
    doc = "Time, files, folders, the terminal, Ctrl-C. File functions return nil, message, code when they fail.",
    functions = {
        { "now", "", "number", "Seconds of a clock that only goes forward." },
        { "time", "", "number", "Seconds since 1970." },
        { "mkdir", "path:string", "true? ok;string? message", "Makes a folder with its parents." },
        { "list", "folder:string", "string[]? names;string? message", "Names in a folder, sorted." },
        { "stat", "path:string", "sagan.Stat? stat;string? message", "What a path is." },
        { "remove", "path:string", "true? ok;string? message", "Removes a file or an empty folder." },
        { "rename", "from:string to:string", "true? ok;string? message", "Renames." },
        { "write_atomic", "path:string text:string", "true? ok;string? message", "Writes the whole file or leaves the old one." },
        { "append", "path:string text:string private:boolean?", "true? ok;string? message", "Adds to the end of a file; private: one that it makes is its owner's alone (0600)." },
        { "read", "path:string", "string? text;string? message", "The whole file." },
        { "free_disk", "path:string", "integer? bytes;string? message", "Bytes that may still be written there." },
        { "lock", "path:string", "sagan.Lock? lock;string? message", "An exclusive lock, held until closed." },
        { "lock_held", "path:string", "boolean? held;string? message", "Whether somebody holds that lock, without taking it." },
        { "isatty", "fd:integer", "boolean", "Whether a file descriptor is a terminal." },
        { "terminal_width", "", "integer?", "Columns; nil without a terminal." },
        { "getpid", "", "integer", "Number of this process." },
        { "hostname", "", "string", "Name of the machine." },
        { "cpu_count", "", "integer", "Cores of the machine." },
        { "nproc", "", "integer", "Cores that this process may use." },
        { "executable_path", "", "string? path;string? message", "The program that runs." },
        { "working_folder", "", "string? path;string? message", "The folder that relative paths begin in." },
        { "env", "name:string", "string?", "A variable of the environment." },
        { "catch_interrupts", "on:boolean", "", "While on, Ctrl-C only makes interrupted() true." },
        { "interrupted", "", "boolean", "true once after Ctrl-C." },
    },
    classes = { { "Lock", methods = { { "close", "", "", "Gives the lock back." } } } },
}

parts.safetensors = {
    doc = "Named tensors in files. A missing or broken file is nil, message, code.",
    functions = {
        { "load", "path:string", "table<string,sagan.Tensor>? tensors;table<string,string>|string metadata_or_message", "All tensors of a file." },
        { "header", "path:string", "table<string,table>? entries;table<string,string>|string metadata_or_message", "Names, dtypes and shapes, without reading the tensors." },
        { "save", "path:string tensors:table<string,sagan.Tensor> metadata:table<string,string>?", "true? ok;string? message", "All or nothing; the same bytes for the same content." },
        { "load_into", "path:string tensors:table<string,sagan.Tensor>", "true? ok;table<string,string>|string metadata_or_message", "Copies into tensors that exist; nothing changes when names or shapes differ." },
    },
}

parts.pth = {
    doc = "PyTorch state dicts, read as data: nothing in them is run. Layouts are the file's. A missing or broken file is nil, message, code.",
    functions = {
        { "load", "path:string", "table<string,sagan.Tensor>? tensors;string? message", "All tensors of a file: F32, F16, F64 as f32, BF16 as bf16, I32 and I64 as i32, U8 as u8." },
        { "header", "path:string", "table<string,table>? entries;string? message", "Names, dtypes and shapes of what load would give, without reading the tensors." },
    },
}

parts.resizer = {
    doc = "Pictures to the Inception network's input; each rule is that of a program in the field, and their scores do not compare.",
    functions = {
        { "run", "images:sagan.Tensor rule:\"tf1\"|\"torch\"|\"clean\" side:integer?", "sagan.Tensor", "u8 {N,H,W,1 or 3} -> f32 {N,side,side,3} in [-1, 1]; side is 299. tf1: TensorFlow 1's bilinear; torch: bilinear with half-pixel centres; clean: Pillow's antialiased bicubic on floats." },
        { "names", "", "string[]", "The rules." },
    },
}

parts.sha256 = {
    doc = "SHA-256 digests as 64 hexadecimal digits.",
    functions = {
        { "text", "text:string", "string", "Of a string." },
        { "file", "path:string", "string? digest;string? message", "Of a file." },
    },
}

parts.socket = {
    doc = "Messages between processes of one user. Nothing blocks but wait. nil, message, code for what the other side or the system did wrong.",
    functions = {
        { "listen", "path:string", "sagan.Socket? listener;string? message", "A private file (mode 0600) of that name; it replaces a socket that is there." },
        { "connect", "path:string", "sagan.Socket? peer;string? message", "The code \"state\": a socket is there, but no process listens." },
        { "wait", "sockets:sagan.Socket[] seconds:number", "integer? ready;string? message", "Until some have something to receive or accept, the time is over (below 0: never) or a signal comes; sends what waits." },
    },
    classes = { { "Socket", methods = {
        { "accept", "", "sagan.Socket? peer;string? message", "nil if nobody waits." },
        { "send", "text:string", "true? ok;string? message", "What the other side does not take yet waits; of 4 MiB too much." },
        { "receive", "", "string? text;string? message", "The next message; nil if none is complete, with a message if none will come." },
        { "unsent", "", "integer", "Bytes that wait for the other side to read." },
        { "close", "", "", "Ends the connection; a listener's file goes away." },
    } } },
}

parts.image = {
    doc = "Pictures as u8 tensors {H,W,C} or {N,H,W,C}. Positions are x, y and count from 1; a colour is {r, g, b} or a number, 0 to 255.",
    functions = {
        { "read", "path:string channels:integer?", "sagan.Tensor? image;string? message", "A PNG, JPEG or BMP file." },
        { "decode", "bytes:string channels:integer? name:string?", "sagan.Tensor? image;string? message", "The same from memory; the name is for the message." },
        { "write", "path:string image:sagan.Tensor", "true? ok;string? message", "Writes a PNG file." },
        { "write_gif", "path:string images:sagan.Tensor seconds:number?", "true? ok;string? message", "Writes {N,H,W,C} as an animation, one picture after the other, 0.2 seconds each. Up to 256 colours are kept exactly." },
        { "encode_png", "image:sagan.Tensor", "string", "The bytes of a PNG file." },
        { "resize", "images:sagan.Tensor height:integer width:integer", "sagan.Tensor", "Antialiased, as Pillow's BILINEAR." },
        { "crop_center", "images:sagan.Tensor height:integer? width:integer?", "sagan.Tensor", "The middle; without a size the largest square." },
        { "convert", "images:sagan.Tensor channels:integer", "sagan.Tensor", "To grey (1) or RGB (3)." },
        { "enlarge", "images:sagan.Tensor factor:integer", "sagan.Tensor", "Every pixel becomes factor x factor." },
        { "blank", "height:integer width:integer channels:integer color:sagan.Color?", "sagan.Tensor", "A plain picture." },
        { "grid", "images:sagan.Tensor columns:integer pad:integer? color:sagan.Color?", "sagan.Tensor", "Many pictures as one." },
        { "heatmap", "values:sagan.Tensor low:number? high:number?", "sagan.Tensor", "f32 {h,w} or {N,h,w} in colours, dark blue to yellow." },
        { "blend", "a:sagan.Tensor b:sagan.Tensor alpha:number", "sagan.Tensor", "(1 - alpha) a + alpha b." },
        { "paste", "image:sagan.Tensor what:sagan.Tensor x:integer y:integer", "sagan.Tensor", "Draws a picture into another." },
        { "draw_rect", "image:sagan.Tensor x:integer y:integer width:integer height:integer thickness:integer? color:sagan.Color?", "sagan.Tensor", "Draws a frame." },
        { "draw_cross", "image:sagan.Tensor x:integer y:integer radius:integer color:sagan.Color?", "sagan.Tensor", "Draws a cross." },
        { "draw_line", "image:sagan.Tensor x0:integer y0:integer x1:integer y1:integer thickness:number? color:sagan.Color? alpha:number?", "sagan.Tensor", "Draws a line with round ends and soft edges; with equal ends a disc. alpha: how much it covers, 0 to 1." },
        { "text", "image:sagan.Tensor x:integer y:integer text:string scale:integer? color:sagan.Color?", "sagan.Tensor", "Writes letters of 5 x 7 points, times scale." },
        { "text_size", "text:string scale:integer?", "integer width;integer height", "The room that text takes." },
    },
}

parts.terminal_picture = {
    doc = "Pictures as text for the terminal; sagan.show prints them.",
    functions = {
        { "detect", "", "sagan.Terminal", "What the terminal at hand can do." },
        { "modes", "", "string[]", "half (always there), and with libchafa symbols, sixel, kitty, iterm2." },
        { "render", "image:sagan.Tensor options:sagan.PictureOptions?", "string? text;string? message", "The text that shows a picture, as large as fits; what the options leave out is the terminal's." },
    },
}

parts.events = {
    doc = "TensorBoard event files.",
    functions = {
        { "open", "path:string append:boolean?", "sagan.EventWriter? writer;string? message", "A file, or a folder whose newest event file goes on." },
    },
    classes = { { "EventWriter", methods = {
        { "scalar", "tag:string value:number step:integer wall:number?", "true? ok;string? message", "One point of a curve." },
        { "image", "tag:string png:string height:integer width:integer channels:integer step:integer wall:number?", "true? ok;string? message", "One picture." },
        { "flush", "", "true? ok;string? message", "Everything so far reaches the file." },
        { "close", "", "true? ok;string? message", "Flushes and closes." },
    } } },
}

parts.dataset = {
    doc = "Data sets and their loaders. Images count from 1, labels and steps from 0.",
    functions = {
        { "open", "spec:string options:sagan.DatasetOptions?", "sagan.Dataset? dataset;string? message", "auto, fashion-mnist, idx:, cifar10:, folder:, pack:, quadrupeds[:count], or a path." },
        { "pack", "source:sagan.Dataset|string path:string options:sagan.DatasetOptions?", "integer? count;string? message", "Writes a data set, decoded, as one file." },
    },
    classes = {
        { "Dataset",
            fields = { { "count", "integer" }, { "height", "integer" }, { "width", "integer" }, { "channels", "integer" },
                { "classes", "integer" }, { "class_names", "string[]" }, { "name", "string" }, { "spec", "string" },
                { "skipped", "integer" } },
            methods = {
                { "get", "i:integer", "sagan.Tensor image;integer label", "One picture {H,W,C} and its label." },
                { "label", "i:integer", "integer", "One label." },
                { "legs", "i:integer", "integer?", "How many legs the i-th drawn quadruped shows." },
                { "batch", "indices:integer[]", "sagan.Tensor images;sagan.Tensor labels", "Chosen pictures." },
                { "histogram", "", "integer[]", "Pictures in each class." },
                { "hash", "", "string", "A fingerprint of the content." },
                { "check", "", "string?", "What makes training on it pointless: one class only, constant pictures." },
                { "loader", "options:sagan.LoaderOptions", "sagan.Loader", "Prepares batches ahead in a thread." },
                { "close", "", "", "Gives its memory back." },
            } },
        { "Loader", methods = {
            { "fill", "step:integer images:sagan.Tensor labels:sagan.Tensor?", "", "Copies the batch of that number (from 0) into the tensors." },
            { "close", "", "", "Ends its thread." },
        } },
    },
}

parts.metrics = {
    doc = "Scores from features f32 {N,D}; sagan.metrics is the documented face. Unfit numbers are nil, message, code.",
    functions = {
        { "check", "features:sagan.Tensor what:string?", "true? ok;string? message", "Refuses NaN and infinity, naming row and column." },
        { "moments", "", "sagan.Moments", "An empty stream of rows." },
        { "import", "n:integer mean:sagan.Tensor scatter:sagan.Tensor", "sagan.Moments? moments;string? message", "What export gave, as moments again." },
        { "frechet", "a:sagan.Moments b:sagan.Moments", "number? distance;table|string terms_or_message", "The squared Frechet distance and its terms." },
        { "inception_score", "logits:sagan.Tensor options:table?", "number[]? scores;string? message", "The score of each split; options: splits, order, shuffle." },
        { "kid_subset", "x:sagan.Tensor y:sagan.Tensor subset:integer options:table?", "number? mmd2;string? message", "Unbiased MMD^2 of one subset (from 0); options: size, degree, gamma, coef, seed." },
        { "singular_values", "matrix:sagan.Tensor", "number[]? values;string? message", "All singular values of f32 {N,D}, the largest first." },
        { "neighbours", "real:sagan.Tensor fake:sagan.Tensor options:table?", "sagan.Neighbours? computation;string? message", "Precision, recall, density, coverage, in steps; options: k, inclusive." },
    },
    classes = {
        { "Moments", methods = {
            { "add", "features:sagan.Tensor", "sagan.Moments? self;string? message", "Adds rows f32 {N,D}; all or none, and a refused batch spoils the stream." },
            { "merge", "other:sagan.Moments", "sagan.Moments? self;string? message", "Adds the other's rows." },
            { "count", "", "integer", "Rows so far." },
            { "width", "", "integer", "Features of a row; 0 before the first." },
            { "export", "", "sagan.Tensor? mean;sagan.Tensor|string scatter_or_message", "f64 as u8 {D,8} and {D(D+1)/2,8}: the lower triangle, row after row." },
            { "close", "", "", "Gives its memory back." },
        } },
        { "Neighbours", methods = {
            { "step", "", "boolean", "Does one piece; false when all is done." },
            { "progress", "", "integer done;integer total", "How far it is." },
            { "result", "", "table", "precision, recall, density, coverage, repeated_real, repeated_fake." },
            { "close", "", "", "Gives its memory back." },
        } },
    },
}

parts.order = {
    "cuda", "system", "safetensors", "pth", "sha256", "socket", "image", "terminal_picture", "resizer", "events", "dataset", "metrics",
}

parts.types = [[
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
]]

return parts
