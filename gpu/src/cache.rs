//! Compiled pipelines on disk, where the driver interface offers them (Vulkan does).
//!
//! Invariant: the file is only a hint. It is named by adapter, driver and layout, replaced as a whole, and a damaged or
//! foreign one costs a compilation, since the driver checks what it is given.

use std::path::{Path, PathBuf};

use weft_shaders::Layout;

/// A pipeline cache with the file that it came from and goes to.
pub(crate) struct Cache {
    cache: Option<(wgpu::PipelineCache, PathBuf)>,
}

/// Opens the cache of this adapter, if a folder is given and the device has pipeline caches.
pub(crate) fn open(
    adapter: &wgpu::Adapter,
    device: &wgpu::Device,
    dir: Option<&Path>,
    layout: Layout,
) -> Cache {
    let key = wgpu::util::pipeline_cache_key(&adapter.get_info());
    let (Some(dir), Some(key)) = (dir, key) else { return Cache { cache: None } };
    if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
        return Cache { cache: None };
    }
    let path = dir.join(format!("{key}_{}", layout.name()));
    let data = std::fs::read(&path).ok();
    let descriptor =
        wgpu::PipelineCacheDescriptor { label: Some("weft"), data: data.as_deref(), fallback: true };
    // SAFETY: the data, if any, is a file that this module wrote from `PipelineCache::get_data` under this adapter's
    // key, in a folder of the node's own; wgpu checks its header and falls back to an empty cache.
    #[allow(unsafe_code)]
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    Cache { cache: Some((cache, path)) }
}

impl Cache {
    /// What pipelines are compiled with.
    pub(crate) fn pipelines(&self) -> Option<&wgpu::PipelineCache> {
        self.cache.as_ref().map(|(cache, _)| cache)
    }

    /// Writes the cache back. A failure costs the next start a compilation and is not reported.
    pub(crate) fn save(&self) {
        if let Some((cache, path)) = &self.cache
            && let Some(data) = cache.get_data()
        {
            let whole = path.with_extension("new");
            let _ = std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")));
            let _ = std::fs::write(&whole, data).and_then(|()| std::fs::rename(&whole, path));
        }
    }
}
