//! Where models compute: the only file that names a Burn device.
//!
//! Every backend is in the one binary and a device is a value, so that the rest of the crate knows
//! two types: [`Back`] computes, [`Train`] computes and differentiates. [`open`] looks for a driver
//! and an adapter (`probe.rs`) before Burn does. This file does not choose a device for anyone.

use burn::backend::Autodiff;
use burn::tensor::DType;
use burn::tensor::backend::Backend;
use burn::{Dispatch, DispatchDevice};

pub(crate) use crate::probe::cuda_memory;
use crate::{Device, Result, probe};

/// The backend of inference.
pub type Back = Dispatch;
/// The backend of training: the same tensors with a record of how they came to be. The record lies
/// outside the dispatch, so that the model's own kernels can take part in it.
pub type Train = Autodiff<Dispatch>;
/// The CPU's backend by itself: its tensors are slices, so that own kernels need no copies.
pub(crate) type Flex = burn_flex::Flex;
/// A device of either backend.
pub type Place = DispatchDevice;

/// Makes a device ready, or says why it cannot be used. Does not panic where there is no GPU.
pub fn open(device: Device) -> Result<Place> {
    probe::look(device)?;
    Ok(match device {
        Device::Cpu => cpu(),
        Device::Cuda => DispatchDevice::Cuda(Default::default()),
        Device::Wgpu => DispatchDevice::Wgpu(Default::default()),
    })
}

/// The CPU, which needs no looking for.
pub fn cpu() -> Place {
    DispatchDevice::Flex(Default::default())
}

/// [`cpu()`], for [`Flex`].
pub(crate) fn flex() -> burn_flex::FlexDevice {
    burn_flex::FlexDevice
}

/// True where tensors lie in this process's memory and the kernels of [`crate::model`] apply.
pub(crate) fn is_cpu(place: &Place) -> bool {
    matches!(place, DispatchDevice::Flex(_))
}

/// Whether tensors of bf16 can be computed with. WGSL has no such type.
pub(crate) fn computes_bf16(place: &Place) -> bool {
    Back::supports_dtype(place, DType::BF16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_always_opens_and_a_missing_gpu_is_an_error_with_a_hint() {
        assert!(is_cpu(&open(Device::Cpu).unwrap()));
        for device in [Device::Cuda, Device::Wgpu] {
            match open(device) {
                Ok(place) => assert!(!is_cpu(&place)),
                Err(e) => {
                    assert!(e.to_string().contains(device.name()), "{e}");
                    assert!(e.help().unwrap().contains("--device cpu"));
                }
            }
        }
    }
}
