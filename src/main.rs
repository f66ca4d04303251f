//! The program `chronolith`: everything is in [`chronolith::cli`].
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    chronolith::cli::main()
}
