module kapstan.dev/xtask/schema

go 1.24
