//! Compiled pipelines on disk, where the driver interface offers them (Vulkan does).
//!
//! Invariant: the file is only a hint. It is named by adapter, driver and layout, and replaced as a whole; a damaged or foreign one costs
//! a compilation. A driver may trust what it is given, so that the file ends with a checksum: what a crash or two writers left is never
//! handed on.

use std::path::{Path, PathBuf};

use weft_shaders::Layout;

/// Larger files are not read: the kernels of a layout take some hundred KiB.
const BYTES_MAX: u64 = 64 << 20;

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
    let data = read(&path);
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
            write(path, data);
        }
    }
}

/// The file's data, if it is whole.
fn read(path: &Path) -> Option<Vec<u8>> {
    if std::fs::metadata(path).ok()?.len() > BYTES_MAX {
        return None;
    }
    let mut data = std::fs::read(path).ok()?;
    let checksum = data.split_off(data.len().checked_sub(blake3::OUT_LEN)?);
    (blake3::hash(&data).as_bytes().as_slice() == checksum).then_some(data)
}

/// Puts the data in place of the file.
fn write(path: &Path, mut data: Vec<u8>) {
    data.extend_from_slice(blake3::hash(&data).as_bytes());
    // Of this process alone: several may start at once.
    let whole = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")));
    if std::fs::write(&whole, data).and_then(|()| std::fs::rename(&whole, path)).is_err() {
        let _ = std::fs::remove_file(&whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_not_handed_to_the_driver() {
        let path =
            std::env::temp_dir().join(format!("weft-gpu-cache-{}", std::process::id())).join("kernels");
        assert_eq!(read(&path), None, "no file");
        write(&path, vec![7; 1000]);
        assert_eq!(read(&path), Some(vec![7; 1000]));
        let whole = std::fs::read(&path).expect("written");
        let mut zeros = whole.clone();
        zeros[300..700].fill(0);
        for damaged in [&whole[..500], &whole[..10], &[], &zeros] {
            std::fs::write(&path, damaged).expect("a temporary folder");
            assert_eq!(read(&path), None, "{} bytes", damaged.len());
        }
        let _ = std::fs::remove_dir_all(path.parent().expect("a folder"));
    }
}
