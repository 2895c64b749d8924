//! The `u2seg` program.

fn main() -> std::process::ExitCode {
    leave_display_alone();
    u2seg::cli::main()
}

/// Where there is no desktop session, as in batch jobs and containers, Mesa's layer that orders devices by their display complains
/// on stderr, once for each look at the devices. u2seg chooses its device itself.
fn leave_display_alone() {
    let set = |name: &str| std::env::var_os(name).is_some();
    if cfg!(target_os = "linux") && !set("XDG_RUNTIME_DIR") && !set("NODEVICE_SELECT") {
        // SAFETY: no other thread runs yet
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("NODEVICE_SELECT", "1");
        }
    }
}
