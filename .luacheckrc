std = "lua54"
max_line_length = 130
files["tests/spec"] = { std = "+busted" }
exclude_files = { "scripts/sagan/meta" }
