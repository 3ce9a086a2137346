//! The verification kernels as pipelines of a device, and the watch for what ends it.
//!
//! Leaves to [`crate::cache`] where compiled kernels are kept, and to [`crate::engine`] what is run when.

use std::sync::{Arc, Mutex};

use weft_shaders::{Kernel, Layout};

use crate::engine::lock;
use crate::error::GpuError;

/// Records the first thing that ends the device, instead of wgpu's default of panicking.
pub(crate) fn watch(device: &wgpu::Device, state: &Arc<Mutex<Option<GpuError>>>) {
    let lost = Arc::clone(state);
    device.set_device_lost_callback(move |reason, message| {
        lock(&lost).get_or_insert_with(|| GpuError::Lost(format!("{reason:?} {message}")));
    });
    let failed = Arc::clone(state);
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        lock(&failed).get_or_insert_with(|| GpuError::Failed(error.to_string()));
    }));
}

/// Compiles every verification kernel, those of batch equations only if asked to.
pub(crate) fn compile(
    device: &wgpu::Device,
    bind_layout: &wgpu::BindGroupLayout,
    layout: Layout,
    equations: bool,
    cache: Option<&wgpu::PipelineCache>,
) -> Vec<(Kernel, wgpu::ComputePipeline)> {
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("weft"),
        bind_group_layouts: &[Some(bind_layout)],
        immediate_size: 0,
    });
    Kernel::ALL
        .into_iter()
        .filter(|kernel| *kernel != Kernel::MessageIds && (equations || !kernel.is_of_equations()))
        .map(|kernel| {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(kernel.name()),
                source: wgpu::ShaderSource::Wgsl(kernel.source(layout).into()),
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.name()),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache,
            });
            (kernel, pipeline)
        })
        .collect()
}
