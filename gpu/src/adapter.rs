//! Which adapters a machine has, and which one is meant by `auto`, `off`, a name or an index.
//!
//! Invariant: a software adapter (a CPU in disguise) is never chosen unless `WEFT_GPU_ALLOW_CPU=1`: it is slower than
//! the CPU backends. Leaves opening the device to [`crate::engine`].

use std::fmt;
use std::str::FromStr;

use crate::error::GpuError;
use crate::wait::block_on;

/// Set to `1`, it lets software adapters be chosen. Continuous integration sets it.
pub const ALLOW_CPU_VARIABLE: &str = "WEFT_GPU_ALLOW_CPU";

/// Adapters at once, at most: each costs threads, memory and attention, and machines have no more.
pub const ADAPTERS_MAX: usize = 16;

/// Whether software adapters may be chosen.
#[must_use]
pub fn software_allowed() -> bool {
    std::env::var_os(ALLOW_CPU_VARIABLE).is_some_and(|value| value == "1")
}

/// What a user asks for: `--gpu auto|off|NAME|index`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Choice {
    /// The most capable adapter: discrete, then integrated, then virtual, then (if allowed) software.
    #[default]
    Auto,
    /// None.
    Off,
    /// The first adapter whose name contains this, whatever the case of letters.
    Named(String),
    /// The adapter at this place of [`list`].
    Index(usize),
}

impl FromStr for Choice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.trim() {
            "auto" => Choice::Auto,
            "off" | "none" => Choice::Off,
            other => other.parse().map_or_else(|_| Choice::Named(other.to_owned()), Choice::Index),
        })
    }
}

/// What a user asks for where several adapters may work at once: choices separated by commas, such as `0,1`. Words that
/// mean none or one on their own, `off` and `auto`, cannot be combined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(Vec<Choice>);

impl Default for Selection {
    fn default() -> Self {
        Selection(vec![Choice::Auto])
    }
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        if parts.len() > ADAPTERS_MAX {
            return Err(format!("at most {ADAPTERS_MAX} adapters, got {}", parts.len()));
        }
        if parts.iter().any(|part| part.is_empty()) {
            return Err("auto, off, or adapters by index or name, separated by commas".to_owned());
        }
        let Ok(choices) = parts.iter().map(|part| part.parse()).collect::<Result<Vec<Choice>, _>>();
        if choices.len() > 1 && choices.iter().any(|choice| matches!(choice, Choice::Auto | Choice::Off)) {
            return Err("auto or off alone, or a list of indices and names".to_owned());
        }
        Ok(Selection(choices))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, choice) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match choice {
                Choice::Auto => write!(f, "{comma}auto")?,
                Choice::Off => write!(f, "{comma}off")?,
                Choice::Named(name) => write!(f, "{comma}{name}")?,
                Choice::Index(index) => write!(f, "{comma}{index}")?,
            }
        }
        Ok(())
    }
}

impl Selection {
    /// Whether it is `auto`.
    #[must_use]
    pub fn is_auto(&self) -> bool {
        self.0 == [Choice::Auto]
    }

    /// Whether it is `off`.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0 == [Choice::Off]
    }

    /// The adapters that it means, in its order; an adapter named twice is opened twice.
    ///
    /// # Errors
    /// As [`choose`], for the first choice that nothing fits.
    pub fn adapters(&self) -> Result<Vec<Found>, GpuError> {
        self.0.iter().filter_map(|choice| choose(choice).transpose()).collect()
    }
}

/// An adapter, as `weft gpu list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its place in the list.
    pub index: usize,
    /// The device's name.
    pub name: String,
    /// The interface: Vulkan, Metal, Dx12.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// Discrete, integrated, virtual or software.
    pub kind: &'static str,
    /// Whether it is software: chosen only when allowed.
    pub software: bool,
    /// Whether shaders have 64-bit integers, so that the `u64x10` layout runs.
    pub int64: bool,
    /// Bytes of the largest buffer that a shader can see.
    pub binding_bytes_max: u64,
}

/// An adapter that can be opened.
pub struct Found {
    pub(crate) adapter: wgpu::Adapter,
    /// What it is.
    pub description: Description,
}

/// Keeps Mesa's device-selection layer out of the process: it asks a window system that servers do not have which adapter
/// it prefers, and libwayland complains on stderr, once for every question. To be called while the process has one
/// thread; does nothing later, or where `NODEVICE_SELECT` is set already.
pub fn without_window_system() {
    const VARIABLE: &str = "NODEVICE_SELECT";
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
    if std::env::var_os(VARIABLE).is_some() || !matches!(threads, Ok(1)) {
        return;
    }
    // SAFETY: the environment may be changed while nothing else reads it, and this is the process's only thread.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var(VARIABLE, "1");
    }
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(descriptor)
}

/// Every adapter of this machine, software ones too.
#[must_use]
pub fn list() -> Vec<Found> {
    let adapters = block_on(instance().enumerate_adapters(wgpu::Backends::PRIMARY));
    adapters
        .into_iter()
        .enumerate()
        .map(|(index, adapter)| {
            let info = adapter.get_info();
            let (kind, software) = match info.device_type {
                wgpu::DeviceType::DiscreteGpu => ("discrete", false),
                wgpu::DeviceType::IntegratedGpu => ("integrated", false),
                wgpu::DeviceType::VirtualGpu => ("virtual", false),
                wgpu::DeviceType::Cpu => ("software", true),
                wgpu::DeviceType::Other => ("other", false),
            };
            let description = Description {
                index,
                name: info.name.clone(),
                backend: format!("{:?}", info.backend),
                driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
                kind,
                software,
                int64: adapter.features().contains(wgpu::Features::SHADER_INT64),
                binding_bytes_max: adapter.limits().max_storage_buffer_binding_size,
            };
            Found { adapter, description }
        })
        .collect()
}

/// The adapter that `choice` means, or `None` for [`Choice::Off`].
///
/// # Errors
/// [`GpuError::NoAdapter`] if `auto` finds nothing usable, [`GpuError::NotFound`] if a name or index fits nothing that
/// may be used.
pub fn choose(choice: &Choice) -> Result<Option<Found>, GpuError> {
    choose_from(list(), choice, software_allowed())
}

/// [`choose`] among given adapters.
///
/// # Errors
/// As [`choose`].
pub fn choose_from(found: Vec<Found>, choice: &Choice, software: bool) -> Result<Option<Found>, GpuError> {
    let names: Vec<String> = found.iter().map(|f| f.description.name.clone()).collect();
    let passed_over = found.iter().filter(|f| f.description.software && !software).count();
    let mut usable = found.into_iter().filter(|f| software || !f.description.software);
    let not_found = |wanted: String| GpuError::NotFound { wanted, found: names };
    match choice {
        Choice::Off => Ok(None),
        Choice::Auto => {
            let rank = |f: &Found| match f.description.kind {
                "discrete" => 0,
                "integrated" => 1,
                "virtual" => 2,
                "other" => 3,
                _ => 4,
            };
            usable.min_by_key(rank).map(Some).ok_or(GpuError::NoAdapter { software: passed_over })
        }
        Choice::Index(index) => usable
            .find(|f| f.description.index == *index)
            .map(Some)
            .ok_or_else(|| not_found(index.to_string())),
        Choice::Named(name) => {
            let wanted = name.to_lowercase();
            usable
                .find(|f| f.description.name.to_lowercase().contains(&wanted))
                .map(Some)
                .ok_or_else(|| not_found(name.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_command_line_are_understood() {
        let parse = |text: &str| text.parse::<Choice>().unwrap_or_default();
        assert_eq!(parse("auto"), Choice::Auto);
        assert_eq!(parse("off"), Choice::Off);
        assert_eq!(parse("2"), Choice::Index(2));
        assert_eq!(parse("Radeon RX"), Choice::Named("Radeon RX".into()));
    }

    #[test]
    fn several_adapters_are_named_by_a_list_and_auto_and_off_stand_alone() {
        let parse = |text: &str| text.parse::<Selection>();
        assert!(parse("auto").is_ok_and(|all| all.is_auto() && all.to_string() == "auto"));
        assert!(parse("off").is_ok_and(|all| all.is_off() && all.to_string() == "off"));
        let list = Selection(vec![Choice::Index(0), Choice::Named("RX".into())]);
        assert_eq!(parse("0, RX"), Ok(list.clone()));
        assert_eq!(parse(&list.to_string()), Ok(list));
        for bad in ["", "0,", "auto,1", "1,off", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_machine_without_adapters_is_told_so() {
        let error = choose_from(Vec::new(), &Choice::Auto, true).err();
        assert_eq!(error, Some(GpuError::NoAdapter { software: 0 }));
        let error = choose_from(Vec::new(), &Choice::Index(0), true).err();
        assert_eq!(error, Some(GpuError::NotFound { wanted: "0".into(), found: Vec::new() }));
        assert!(choose_from(Vec::new(), &Choice::Off, false).is_ok_and(|none| none.is_none()));
    }
}
