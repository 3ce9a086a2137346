//! What a GPU's own compiler makes of every kernel, on a machine that need not have that GPU.
//!
//! Usage: `RADV_FORCE_FAMILY=navi21 RADV_DEBUG=nocache VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/radeon_icd.x86_64.json
//! cargo run --release -p weft-gpu --example offline [-- --dump DIR]`. With `RADV_FORCE_FAMILY` Mesa offers a device
//! that compiles for the named AMD chip and runs nothing; without it the tool reports on whatever Vulkan device comes
//! first. Everything is read through `VK_KHR_pipeline_executable_properties`; nothing is dispatched.
//!
//! For AMD the machine code is read too: its loops are found by their backward branches, every instruction costs the
//! cycles it occupies a SIMD's vector unit, and the loops' trip counts, which are known (see `TRIPS`), give cycles per
//! signature and signatures per second of a card. Scalar instructions, branches and waits run beside the vector unit
//! and are not counted; memory latency is assumed hidden. So the estimate is an upper bound of the real rate.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::PathBuf;

use ash::vk;
use weft_shaders::{Kernel, Layout};

/// The card that cycles are turned into signatures per second for: 60 compute units = 120 SIMDs of 32 lanes, 2.1 GHz.
const SIMDS: f64 = 120.0;
const CLOCK_HZ: f64 = 2.1e9;
const LANES: f64 = 32.0;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dump = match arguments.next().as_deref() {
        Some("--dump") => arguments.next().map(PathBuf::from),
        _ => None,
    };
    let device = Compiler::new()?;
    println!("device: {}", device.name);
    println!(
        "| kernel | layout | waves a SIMD | registers | spilled | instructions | vector cycles a wave | a signature |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut totals = BTreeMap::new();
    for layout in Layout::ALL {
        if layout.needs_int64() && !device.int64 {
            println!("(no 64-bit integers: {} left out)", layout.name());
            continue;
        }
        for kernel in Kernel::ALL {
            let report = device.compile(kernel, layout)?;
            if let Some(dir) = &dump {
                std::fs::create_dir_all(dir)?;
                std::fs::write(dir.join(format!("{}_{}.txt", kernel.name(), layout.name())), &report.text)?;
            }
            let cycles = cycles(kernel, &report.text, report.lanes);
            println!(
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                kernel.name(),
                layout.name(),
                report.find(&["Subgroups per SIMD"]),
                report.find(&["VGPRs", "Register Count"]),
                report.find(&["Spilled VGPRs"]),
                report.find(&["Instruction", "Instructions", "Instruction Count"]),
                cycles.as_ref().map_or("-".into(), |c| format!("{:.0}", c.wave)),
                cycles.as_ref().map_or("-".into(), |c| format!("{:.0}", c.signature)),
            );
            if let Some(c) = cycles
                && !matches!(kernel, Kernel::HashBlocks | Kernel::Exact | Kernel::MessageIds)
            {
                *totals.entry(layout).or_insert(0.0) += c.signature;
            }
        }
    }
    for (layout, total) in totals {
        let rate = SIMDS * CLOCK_HZ / total;
        println!(
            "{}: {SIMDS} SIMDs * {CLOCK_HZ:.2e} Hz / {total:.0} vector cycles a signature = {:.2} million signatures/s",
            layout.name(),
            rate / 1e6
        );
    }
    Ok(())
}

/// Trips of each loop of a kernel, in the order in which the loops begin in the code, all per entry into the loop
/// around it. Honest signatures; `finish` inverts `FINISH_ROWS` rows an invocation.
fn trips(kernel: Kernel) -> &'static [f64] {
    const FINISH_ROWS: f64 = 16.0;
    // power_252_3: eleven steps, 251 squarings.
    match kernel {
        Kernel::HashIds => &[5.0],
        Kernel::HashBlocks => &[1.0, 5.0],
        Kernel::Decode => &[11.0, 251.0 / 11.0],
        Kernel::Table => &[8.0],
        // Windows; doublings a window; additions a window: 64 + 16 over 64 windows, less the digits that are 0.
        Kernel::Ladder => &[64.0, 4.0 * 63.0 / 64.0, 76.0 / 64.0],
        Kernel::Finish => &[FINISH_ROWS, 11.0, 251.0 / 11.0, 3.0, FINISH_ROWS],
        Kernel::Exact => &[6.0],
        Kernel::Verdicts => &[32.0],
        Kernel::MessageIds => &[4.0],
    }
}

/// How often the first side of each large if-else of a kernel is taken, in the order of the code: `ladder` computes T in
/// 63 of 252 doublings, reads the row's table in 60 of 76 additions, skips the product with 2 Z in the other 16, and
/// computes T in 16 of them.
fn first_sides(kernel: Kernel) -> &'static [f64] {
    match kernel {
        Kernel::Ladder => &[0.25, 60.0 / 76.0, 16.0 / 76.0, 16.0 / 76.0],
        _ => &[],
    }
}

/// An if-else counts as large from this many instructions on: smaller ones do not matter.
const LARGE: usize = 31;

struct Cycles {
    wave: f64,
    signature: f64,
}

/// Vector-unit cycles of one wave, and of one signature. `None` for machine code of another maker.
fn cycles(kernel: Kernel, text: &str, lanes: u32) -> Option<Cycles> {
    let lines: Vec<&str> = text.lines().collect();
    let mut labels = BTreeMap::new();
    let mut code = Vec::new();
    for line in &lines {
        let line = line.trim();
        if let Some(label) = line.strip_suffix(':').filter(|l| l.starts_with("BB")) {
            labels.insert(label.to_owned(), code.len());
        } else if line.starts_with("v_")
            || line.starts_with("s_")
            || line.contains("_load")
            || line.contains("_store")
        {
            code.push(line);
        }
    }
    if !code.iter().any(|line| line.starts_with("v_")) {
        return None;
    }
    // A backward branch closes a loop from its target to itself; several to one target are one loop.
    let mut loops = BTreeMap::new();
    for (at, line) in code.iter().enumerate() {
        if (line.starts_with("s_cbranch") || line.starts_with("s_branch"))
            && let Some(target) =
                line.split_whitespace().find_map(|word| labels.get(word.trim_end_matches(',')))
            && *target <= at
        {
            loops.entry(*target).and_modify(|end: &mut usize| *end = at.max(*end)).or_insert(at);
        }
    }
    let trips = trips(kernel);
    if loops.len() != trips.len() {
        eprintln!("{}: {} loops found, {} expected: no estimate", kernel.name(), loops.len(), trips.len());
        return None;
    }
    let mut sides = Vec::new();
    for (at, line) in code.iter().enumerate() {
        if line.starts_with("s_cbranch_scc")
            && let Some(other) =
                line.split_whitespace().find_map(|word| labels.get(word.trim_end_matches(',')))
            && *other > at
            && let Some(jump) = code.get(other - 1).filter(|jump| jump.starts_with("s_branch"))
            && let Some(join) =
                jump.split_whitespace().find_map(|word| labels.get(word.trim_end_matches(',')))
            && *join > *other
            && join - at >= LARGE
        {
            sides.push((at..*other, *other..*join));
        }
    }
    let taken = first_sides(kernel);
    if !taken.is_empty() && sides.len() != taken.len() {
        eprintln!("{}: {} choices found, {} expected: no estimate", kernel.name(), sides.len(), taken.len());
        return None;
    }
    let passes = f64::from(lanes) / LANES;
    let wave: f64 = code
        .iter()
        .enumerate()
        .map(|(at, line)| {
            let weight: f64 = loops
                .iter()
                .zip(trips)
                .filter(|((start, end), _)| (**start..=**end).contains(&at))
                .map(|(_, trips)| trips)
                .product();
            let chosen: f64 = sides
                .iter()
                .zip(taken)
                .map(|((first, second), taken)| {
                    if first.contains(&at) {
                        *taken
                    } else if second.contains(&at) {
                        1.0 - taken
                    } else {
                        1.0
                    }
                })
                .product();
            weight * chosen * cost(line) * passes
        })
        .sum();
    let rows = match kernel {
        Kernel::Finish => 16.0,
        Kernel::Verdicts => 32.0,
        _ => 1.0,
    };
    Some(Cycles { wave, signature: wave / f64::from(lanes) / rows })
}

/// Cycles for which an instruction holds the vector unit of an RDNA SIMD, per 32 lanes: 32-bit and 64-bit integer
/// multiplications run at a quarter of the rate, 64-bit shifts and additions at half (RDNA instruction set guides).
fn cost(line: &str) -> f64 {
    let name = line.split_whitespace().next().unwrap_or_default();
    if !name.starts_with("v_") {
        return 0.0;
    }
    if ["v_mul_lo_u32", "v_mul_hi_u32", "v_mul_hi_i32", "v_mad_u64_u32", "v_mad_i64_i32"]
        .iter()
        .any(|slow| name.starts_with(slow))
    {
        return 4.0;
    }
    if name.ends_with("b64") && name.contains("sh") {
        return 2.0;
    }
    1.0
}

struct Report {
    statistics: Vec<(String, String)>,
    text: String,
    lanes: u32,
}

impl Report {
    fn find(&self, names: &[&str]) -> String {
        let hit = self.statistics.iter().find(|(name, _)| names.iter().any(|n| name == n));
        hit.map_or("-".into(), |(_, value)| value.clone())
    }
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
            let entry = ash::Entry::load()?;
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let create = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&create, None)?;
            let physical = *instance.enumerate_physical_devices()?.first().ok_or("no Vulkan device")?;
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
            let device = instance.create_device(physical, &create, None)?;
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
            let sets = [device.create_descriptor_set_layout(&create, None)?];
            let layout = device
                .create_pipeline_layout(&vk::PipelineLayoutCreateInfo::default().set_layouts(&sets), None)?;
            Ok(Compiler { _entry: entry, _instance: instance, device, executable, layout, name, int64 })
        }
    }

    fn compile(&self, kernel: Kernel, layout: Layout) -> Result<Report> {
        let spirv = spirv(kernel.source(layout))?;
        // SAFETY: `spirv` outlives the call that reads it; the pipeline queried is the one created, with the flags
        // that the queries require; arrays are sized by the calls that count them, which ash does.
        unsafe {
            let module = self
                .device
                .create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&spirv), None)?;
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
                .map_err(|(_, error)| error)?;
            let info = vk::PipelineInfoKHR::default().pipeline(pipelines[0]);
            let executables = self.executable.get_pipeline_executable_properties(&info)?;
            let lanes = executables.first().map_or(32, |e| e.subgroup_size);
            let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipelines[0]);
            let statistics = self.executable.get_pipeline_executable_statistics(&info)?;
            let statistics = statistics
                .iter()
                .map(|s| {
                    let name = CStr::from_ptr(s.name.as_ptr()).to_string_lossy().into_owned();
                    let value = match s.format {
                        vk::PipelineExecutableStatisticFormatKHR::BOOL32 => (s.value.b32 != 0).to_string(),
                        vk::PipelineExecutableStatisticFormatKHR::INT64 => s.value.i64.to_string(),
                        vk::PipelineExecutableStatisticFormatKHR::UINT64 => s.value.u64.to_string(),
                        _ => s.value.f64.to_string(),
                    };
                    (name, value)
                })
                .collect();
            Ok(Report { statistics, text: self.text(&info)?, lanes })
        }
    }

    /// The machine code, where the driver shows it: empty otherwise.
    fn text(&self, info: &vk::PipelineExecutableInfoKHR<'_>) -> Result<String> {
        let call = self.executable.fp().get_pipeline_executable_internal_representations_khr;
        let mut count = 0;
        // SAFETY: the count call, then the call for the properties, then again with buffers of the sizes it named.
        unsafe {
            call(self.device.handle(), info, &raw mut count, std::ptr::null_mut()).result()?;
            let mut found = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            call(self.device.handle(), info, &raw mut count, found.as_mut_ptr()).result()?;
            let mut texts: Vec<Vec<u8>> = found.iter().map(|f| vec![0; f.data_size]).collect();
            for (f, text) in found.iter_mut().zip(&mut texts) {
                f.p_data = text.as_mut_ptr().cast();
            }
            call(self.device.handle(), info, &raw mut count, found.as_mut_ptr()).result()?;
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
    let module = naga::front::wgsl::parse_str(source)?;
    let mut validator = naga::valid::Validator::new(
        naga::valid::ValidationFlags::all(),
        naga::valid::Capabilities::SHADER_INT64,
    );
    let info = validator.validate(&module)?;
    let options = naga::back::spv::Options {
        lang_version: (1, 3),
        flags: naga::back::spv::WriterFlags::empty(),
        bounds_check_policies: naga::proc::BoundsCheckPolicies {
            index: naga::proc::BoundsCheckPolicy::Restrict,
            ..Default::default()
        },
        ..Default::default()
    };
    Ok(naga::back::spv::write_vec(&module, &info, &options, None)?)
}
