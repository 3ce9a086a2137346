//! What a GPU's own compiler makes of every kernel, on a machine that need not have that GPU, and what that is worth.
//!
//! Mesa's RADV, told `RADV_FORCE_FAMILY=navi21`, offers a device that compiles for the named AMD chip and runs nothing. Its
//! statistics (registers, spills, instructions, waves) and machine code are read through
//! `VK_KHR_pipeline_executable_properties`; [`cycles`] turns the code into cycles a signature. Nothing is dispatched.
//!
//! Invariant: what is compiled is what [`crate::Engine`] would run, from the same WGSL through the same naga. The environment
//! must be set before the process first touches Vulkan: [`environment`] says how, and a command starts itself anew with it.

pub mod cycles;

use std::ffi::CStr;
use std::fmt;
use std::path::PathBuf;

use ash::vk;
use weft_shaders::{Kernel, Layout};

use cycles::Cycles;

/// Rows of the equations that are counted.
pub const EQUATION_ROWS: usize = weft_shaders::equation::EQUATION_ROWS;

/// The variable that names the chip to RADV.
pub const FAMILY_VARIABLE: &str = "RADV_FORCE_FAMILY";

/// Where Vulkan drivers are registered, and what RADV's entry begins with.
const ICD_FOLDERS: [&str; 3] =
    ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
const RADV_ICD: &str = "radeon_icd";

/// A chip that RADV compiles for, and the card with it that cycles are turned into signatures a second for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chip {
    /// RADV's name.
    pub name: &'static str,
    /// The card, and where its figures come from.
    pub card: &'static str,
    /// SIMDs of 32 lanes: two a compute unit.
    pub simds: u32,
    /// The card's boost clock, MHz.
    pub clock_mhz: u32,
}

/// The chips that the estimate was made for. Compute units and clocks are the maker's published ones.
pub const CHIPS: [Chip; 2] = [
    Chip {
        name: "navi21",
        card: "RX 6800 (RDNA 2): 60 compute units, boost clock 2.1 GHz",
        simds: 120,
        clock_mhz: 2100,
    },
    Chip {
        name: "navi10",
        card: "RX 5700 XT (RDNA 1): 40 compute units, boost clock 1.9 GHz",
        simds: 80,
        clock_mhz: 1905,
    },
];

impl Chip {
    /// The chip of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Chip> {
        CHIPS.into_iter().find(|chip| chip.name == name)
    }
}

/// Why there is no offline report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineError(String);

impl fmt::Display for OfflineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OfflineError {}

fn failed(what: &str) -> impl Fn(vk::Result) -> OfflineError + '_ {
    move |error| OfflineError(format!("{what}: {error}"))
}

type Result<T> = std::result::Result<T, OfflineError>;

/// What the compiler says of one kernel in one layout.
#[derive(Clone, Debug)]
pub struct KernelReport {
    /// The kernel.
    pub kernel: Kernel,
    /// The field layout.
    pub layout: Layout,
    /// Waves that fit a SIMD at a time, as RADV counts them: in waves of 32 lanes, so that a wave of 64 counts twice.
    pub waves: u64,
    /// Vector registers.
    pub registers: u64,
    /// Vector registers spilled to memory.
    pub spilled: u64,
    /// Instructions.
    pub instructions: u64,
    /// Lanes of a wave.
    pub lanes: u32,
    /// The count of cycles, for machine code that it understands.
    pub cycles: Option<Cycles>,
    /// The machine code.
    pub code: String,
}

/// The report of one chip.
#[derive(Clone, Debug)]
pub struct Report {
    /// The device, as the driver names it.
    pub device: String,
    /// Every kernel in every layout that the chip has.
    pub kernels: Vec<KernelReport>,
}

impl Report {
    /// Vector-unit cycles of a SIMD that an honest signature over a 32-byte id takes, all kernels together; `None` without a count.
    #[must_use]
    pub fn signature_cycles(&self, layout: Layout) -> Option<f64> {
        self.cycles_of(layout, on_the_honest_path)
    }

    /// The part of [`Report::signature_cycles`] that a signature saves whose key is resident: decoding it. (What `table` takes to
    /// look up the key and to compare it is counted in both.)
    #[must_use]
    pub fn warm_key_saves(&self, layout: Layout) -> Option<f64> {
        self.cycles_of(layout, |kernel| kernel == Kernel::Decode)
    }

    /// The same for batch equations of the largest size that hold: A and R decoded, and of the ladder's kernels only the verdicts, since
    /// no row is open.
    #[must_use]
    pub fn equation_cycles(&self, layout: Layout) -> Option<f64> {
        let kernels = self.cycles_of(layout, |kernel| {
            matches!(kernel, Kernel::HashIds | Kernel::Decode | Kernel::Verdicts) || kernel.is_of_equations()
        })?;
        Some(kernels + self.cycles_of(layout, |kernel| kernel == Kernel::Decode)?)
    }

    fn cycles_of(&self, layout: Layout, wanted: impl Fn(Kernel) -> bool) -> Option<f64> {
        let kernels = self.kernels.iter().filter(|report| report.layout == layout && wanted(report.kernel));
        let mut total = 0.0;
        let mut seen = false;
        for report in kernels {
            total += report.cycles.as_ref()?.signature;
            seen = true;
        }
        seen.then_some(total)
    }
}

/// Kernels that do work for an honest signature over an id that is verified by itself: `exact` and the second `decode` end at once, since no row is open.
#[must_use]
pub fn on_the_honest_path(kernel: Kernel) -> bool {
    !matches!(kernel, Kernel::HashBlocks | Kernel::Exact | Kernel::MessageIds) && !kernel.is_of_equations()
}

/// The environment in which [`report`] compiles for `chip`: variables and values.
///
/// # Errors
/// If RADV is not installed.
pub fn environment(chip: &Chip) -> Result<[(&'static str, String); 4]> {
    let icd = radv_icd().ok_or_else(|| {
        OfflineError(format!(
            "Mesa's RADV is not installed: no {RADV_ICD}*.json in {}",
            ICD_FOLDERS.join(", ")
        ))
    })?;
    let icd = icd.to_string_lossy().into_owned();
    Ok([
        (FAMILY_VARIABLE, chip.name.to_owned()),
        ("RADV_DEBUG", "nocache".to_owned()),
        // The loader's older and newer name for the same list.
        ("VK_ICD_FILENAMES", icd.clone()),
        ("VK_DRIVER_FILES", icd),
    ])
}

fn radv_icd() -> Option<PathBuf> {
    ICD_FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(RADV_ICD)))
}

/// Compiles every kernel for the first Vulkan device of this process's environment.
///
/// # Errors
/// If there is no Vulkan, no device, or a kernel does not compile.
pub fn report() -> Result<Report> {
    let compiler = Compiler::new()?;
    let mut kernels = Vec::new();
    for layout in Layout::ALL {
        if layout.needs_int64() && !compiler.int64 {
            continue;
        }
        for kernel in Kernel::ALL {
            kernels.push(compiler.compile(kernel, layout)?);
        }
    }
    Ok(Report { device: compiler.name, kernels })
}

struct Compiler {
    _entry: ash::Entry,
    _instance: ash::Instance,
    device: ash::Device,
    executable: ash::khr::pipeline_executable_properties::Device,
    layout: vk::PipelineLayout,
    name: String,
    int64: bool,
}

impl Compiler {
    fn new() -> Result<Self> {
        // SAFETY: the loader library is a real Vulkan loader; every handle made below comes from it and is used with
        // the objects it was made by. Nothing is destroyed before the process ends.
        unsafe {
            let entry = ash::Entry::load().map_err(|error| OfflineError(format!("no Vulkan: {error}")))?;
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let create = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&create, None).map_err(failed("no Vulkan instance"))?;
            let physical = *instance
                .enumerate_physical_devices()
                .map_err(failed("no Vulkan devices"))?
                .first()
                .ok_or_else(|| OfflineError("no Vulkan device".to_owned()))?;
            let properties = instance.get_physical_device_properties(physical);
            let name = CStr::from_ptr(properties.device_name.as_ptr()).to_string_lossy().into_owned();
            let int64 = instance.get_physical_device_features(physical).shader_int64 == vk::TRUE;
            let queue = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
            let features = vk::PhysicalDeviceFeatures::default().shader_int64(int64);
            let extensions = [ash::khr::pipeline_executable_properties::NAME.as_ptr()];
            let mut wanted = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
                .pipeline_executable_info(true);
            let mut memory_model =
                vk::PhysicalDeviceVulkanMemoryModelFeatures::default().vulkan_memory_model(true);
            let create = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queue)
                .enabled_features(&features)
                .enabled_extension_names(&extensions)
                .push_next(&mut wanted)
                .push_next(&mut memory_model);
            let device = instance.create_device(physical, &create, None).map_err(failed("no device"))?;
            let executable = ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
            let bindings: Vec<_> = (0..9)
                .map(|binding| {
                    vk::DescriptorSetLayoutBinding::default()
                        .binding(binding)
                        .descriptor_count(1)
                        .descriptor_type(if binding == 0 {
                            vk::DescriptorType::UNIFORM_BUFFER
                        } else {
                            vk::DescriptorType::STORAGE_BUFFER
                        })
                        .stage_flags(vk::ShaderStageFlags::COMPUTE)
                })
                .collect();
            let create = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let sets = [device.create_descriptor_set_layout(&create, None).map_err(failed("set layout"))?];
            let layout = device
                .create_pipeline_layout(&vk::PipelineLayoutCreateInfo::default().set_layouts(&sets), None)
                .map_err(failed("pipeline layout"))?;
            Ok(Compiler { _entry: entry, _instance: instance, device, executable, layout, name, int64 })
        }
    }

    fn compile(&self, kernel: Kernel, layout: Layout) -> Result<KernelReport> {
        let spirv = spirv(kernel.source(layout))?;
        // SAFETY: `spirv` outlives the call that reads it; the pipeline queried is the one created, with the flags
        // that the queries require; arrays are sized by the calls that count them, which ash does.
        unsafe {
            let module = self
                .device
                .create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&spirv), None)
                .map_err(failed("shader module"))?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(c"main");
            let create = vk::ComputePipelineCreateInfo::default().stage(stage).layout(self.layout).flags(
                vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                    | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR,
            );
            let pipelines = self
                .device
                .create_compute_pipelines(vk::PipelineCache::null(), &[create], None)
                .map_err(|(_, error)| failed(kernel.name())(error))?;
            let info = vk::PipelineInfoKHR::default().pipeline(pipelines[0]);
            let executables =
                self.executable.get_pipeline_executable_properties(&info).map_err(failed("properties"))?;
            let lanes = executables.first().map_or(32, |e| e.subgroup_size);
            let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipelines[0]);
            let statistics =
                self.executable.get_pipeline_executable_statistics(&info).map_err(failed("statistics"))?;
            let of = |names: &[&str]| {
                let named = |s: &&vk::PipelineExecutableStatisticKHR<'_>| {
                    let name = CStr::from_ptr(s.name.as_ptr()).to_string_lossy();
                    names.iter().any(|wanted| *wanted == name)
                };
                statistics.iter().find(named).map_or(0, |s| match s.format {
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => {
                        u64::try_from(s.value.i64).unwrap_or(0)
                    }
                    _ => s.value.u64,
                })
            };
            let code = self.text(&info)?;
            Ok(KernelReport {
                kernel,
                layout,
                waves: of(&["Subgroups per SIMD"]),
                registers: of(&["VGPRs"]),
                spilled: of(&["Spilled VGPRs"]),
                instructions: of(&["Instructions", "Instruction Count"]),
                lanes,
                cycles: cycles::count(kernel, &code, lanes),
                code,
            })
        }
    }

    /// The machine code, where the driver shows it: empty otherwise.
    fn text(&self, info: &vk::PipelineExecutableInfoKHR<'_>) -> Result<String> {
        let call = self.executable.fp().get_pipeline_executable_internal_representations_khr;
        let mut count = 0;
        // SAFETY: the count call, then the call for the properties, then again with buffers of the sizes it named.
        unsafe {
            call(self.device.handle(), info, &raw mut count, std::ptr::null_mut())
                .result()
                .map_err(failed("machine code"))?;
            let mut found = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            call(self.device.handle(), info, &raw mut count, found.as_mut_ptr())
                .result()
                .map_err(failed("machine code"))?;
            let mut texts: Vec<Vec<u8>> = found.iter().map(|f| vec![0; f.data_size]).collect();
            for (f, text) in found.iter_mut().zip(&mut texts) {
                f.p_data = text.as_mut_ptr().cast();
            }
            call(self.device.handle(), info, &raw mut count, found.as_mut_ptr())
                .result()
                .map_err(failed("machine code"))?;
            for (f, text) in found.iter().zip(&texts) {
                let name = CStr::from_ptr(f.name.as_ptr()).to_string_lossy();
                if name.contains("ssembly") {
                    return Ok(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
                }
            }
        }
        Ok(String::new())
    }
}

/// SPIR-V as wgpu would hand it to a driver with robust buffer access.
fn spirv(source: &str) -> Result<Vec<u32>> {
    let module = naga::front::wgsl::parse_str(source).map_err(|error| OfflineError(error.to_string()))?;
    let mut validator = naga::valid::Validator::new(
        naga::valid::ValidationFlags::all(),
        naga::valid::Capabilities::SHADER_INT64,
    );
    let info = validator.validate(&module).map_err(|error| OfflineError(error.to_string()))?;
    let options = naga::back::spv::Options {
        lang_version: (1, 3),
        flags: naga::back::spv::WriterFlags::empty(),
        bounds_check_policies: naga::proc::BoundsCheckPolicies {
            index: naga::proc::BoundsCheckPolicy::Restrict,
            ..Default::default()
        },
        ..Default::default()
    };
    naga::back::spv::write_vec(&module, &info, &options, None)
        .map_err(|error| OfflineError(error.to_string()))
}
