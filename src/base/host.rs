//! What the machine itself has.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Bytes of the machine's main memory; where a container or a batch system's job may use less of it, that. Zero where the system does
/// not say.
pub fn memory() -> u64 {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(memory);
    let all = system.total_memory();
    // where there is no /proc the crate panics when it is asked for more
    let allowed = (all > 0).then(|| system.cgroup_limits()).flatten();
    let allowed = allowed.map(|limits| limits.total_memory);
    allowed.filter(|allowed| *allowed > 0).map_or(all, |allowed| allowed.min(all))
}

/// Bytes of main memory that no program uses, of what this one may have. Zero where the system does not say.
pub fn free_memory() -> u64 {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(memory);
    let free = system.available_memory();
    let allowed = (system.total_memory() > 0).then(|| system.cgroup_limits()).flatten();
    allowed.map_or(free, |allowed| allowed.free_memory.min(free))
}

/// The system and its version, the kernel's, and the processor's kind, as far as they are told.
pub fn system() -> String {
    let versions = [System::long_os_version(), Some(System::kernel_long_version())];
    let told: Vec<String> = versions.into_iter().flatten().chain([System::cpu_arch()]).collect();
    told.join(", ")
}

/// The time to the second, in UTC, as people read it.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_machine_has_memory() {
        assert!(super::memory() > 64 << 20);
        assert!((1..=super::memory()).contains(&super::free_memory()));
    }
}
