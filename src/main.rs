//! The `u2seg` program.

fn main() -> std::process::ExitCode {
    u2seg::cli::main()
}
