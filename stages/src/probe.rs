//! What GPUs there are, asked of their drivers before anything is started on them.
//!
//! Without a driver or an adapter both Burn and cubecl panic on a thread of their own, where nobody
//! can catch it; so [`look`] comes first, and says what is missing. It knows neither of them.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::{Device, Result, StageError};

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// What its driver calls it.
    pub name: String,
    /// Bytes of its memory, where the driver says.
    pub memory: Option<usize>,
}

/// The GPU of a device; none for the CPU. An error where there is none to be had.
pub(crate) fn look(device: Device) -> Result<Option<Found>> {
    match device {
        Device::Cpu => Ok(None),
        Device::Cuda => {
            cuda_devices().map_err(|why| {
                StageError::failed(format!("the device `cuda` cannot be used: {why}"))
                    .hint("install the NVIDIA driver, or run with `--device cpu`")
            })?;
            let name = "the first NVIDIA GPU".into();
            Ok(Some(Found { name, memory: cuda_memory() }))
        }
        Device::Wgpu => {
            let name = wgpu_adapter().map_err(|why| {
                StageError::failed(format!("the device `wgpu` cannot be used: {why}"))
                    .hint("install a Vulkan driver (Linux), or run with `--device cpu`")
            })?;
            Ok(Some(Found { name, memory: None }))
        }
    }
}

/// Number of CUDA devices, from the driver itself.
fn cuda_devices() -> std::result::Result<i32, String> {
    let names: &[&str] =
        if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };
    // SAFETY: loading the driver runs its initialisers, as any CUDA program does.
    let library = names.iter().find_map(|name| unsafe { libloading::Library::new(name) }.ok());
    let library = library.ok_or("the NVIDIA driver (libcuda) is not installed")?;
    let mut count = 0i32;
    // SAFETY: the signatures are those of the CUDA driver API, stable since CUDA 2.
    unsafe {
        let init = library.get::<unsafe extern "C" fn(u32) -> i32>(b"cuInit\0");
        let init = init.map_err(|_| "libcuda has no cuInit")?;
        let devices = library.get::<unsafe extern "C" fn(*mut i32) -> i32>(b"cuDeviceGetCount\0");
        let devices = devices.map_err(|_| "libcuda has no cuDeviceGetCount")?;
        match init(0) {
            0 => {}
            code => return Err(format!("cuInit failed with code {code}")),
        }
        match devices(&mut count) {
            0 => {}
            code => return Err(format!("cuDeviceGetCount failed with code {code}")),
        }
    }
    if count > 0 { Ok(count) } else { Err("the driver sees no device".into()) }
}

/// Bytes of memory of the first CUDA device, from the driver itself; none where there is no device.
pub(crate) fn cuda_memory() -> Option<usize> {
    cuda_devices().ok()?;
    let names = if cfg!(windows) { ["nvcuda.dll"; 2] } else { ["libcuda.so.1", "libcuda.so"] };
    // SAFETY: `cuda_devices` has loaded and initialised the driver already.
    let library = names.iter().find_map(|name| unsafe { libloading::Library::new(name) }.ok())?;
    let mut bytes = 0usize;
    // SAFETY: the signature is that of the CUDA driver API; device 0 exists.
    let code = unsafe {
        let total =
            library.get::<unsafe extern "C" fn(*mut usize, i32) -> i32>(b"cuDeviceTotalMem_v2\0");
        total.ok()?(&mut bytes, 0)
    };
    (code == 0).then_some(bytes)
}

/// Name of the adapter that Burn and cubecl would take.
fn wgpu_adapter() -> std::result::Result<String, String> {
    use wgpu::{Backends, Instance, InstanceDescriptor, PowerPreference, RequestAdapterOptions};
    let backends = if cfg!(target_os = "macos") { Backends::METAL } else { Backends::VULKAN };
    let instance = Instance::new(InstanceDescriptor {
        backends,
        ..InstanceDescriptor::new_without_display_handle()
    });
    let options = RequestAdapterOptions {
        power_preference: PowerPreference::HighPerformance,
        ..RequestAdapterOptions::default()
    };
    match block_on(instance.request_adapter(&options)) {
        Some(Ok(adapter)) => Ok(adapter.get_info().name),
        Some(Err(_)) => Err("there is no graphics adapter".into()),
        None => Err("the graphics driver does not answer".into()),
    }
}

/// Native wgpu futures are ready at the first poll; a bounded number guards against one that is not.
fn block_on<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..1000).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => {
            std::thread::yield_now();
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_needs_no_looking_for_and_a_missing_gpu_is_an_error_with_a_hint() {
        assert_eq!(look(Device::Cpu).unwrap(), None);
        for device in [Device::Cuda, Device::Wgpu] {
            match look(device) {
                Ok(found) => assert!(!found.unwrap().name.is_empty()),
                Err(e) => {
                    assert!(e.to_string().contains(device.name()), "{e}");
                    assert!(e.help().unwrap().contains("--device cpu"));
                }
            }
        }
    }
}
