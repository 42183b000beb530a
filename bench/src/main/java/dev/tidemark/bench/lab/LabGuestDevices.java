package dev.tidemark.bench.lab;

import dev.tidemark.ffm.LinuxException;
import java.util.function.Supplier;

/** The devices that can write a whole guest, in the lab's flavour mock. */
public final class LabGuestDevices {
  private LabGuestDevices() {}

  /** Mock devices behind IOMMUFD page tables that track. */
  public static LabDevice iommufd() {
    return open(MockIommuDevice::new);
  }

  /** A device that logs its writes. */
  public static LabDevice dmalog() {
    return open(DmaLogDevice::leaving);
  }

  /** The device that the state of {@link #dmalog()}'s arrives in. */
  public static LabDevice dmalogAtDestination() {
    return open(DmaLogDevice::arriving);
  }

  /** A device behind a type1 container. */
  public static LabDevice type1() {
    return open(Type1Device::new);
  }

  private static LabDevice open(Supplier<LabDevice> device) {
    try {
      return device.get();
    } catch (LinuxException | IllegalStateException e) {
      throw new IllegalArgumentException(
          "a guest whose devices write it needs the kernel lab's devices: try it in bench/lab/shell"
              + " mock (here: "
              + e.getMessage()
              + ")",
          e);
    }
  }
}
