package dev.tidemark.ffm.lab;

import dev.tidemark.ffm.vfio.VfioHostDevice;
import java.util.function.Predicate;

/**
 * A VFIO device of the lab.
 *
 * @param name what a group knows it by
 * @param cdev its character device
 * @param group its group's
 */
public record LabDevices(String name, String cdev, String group) {
  /** The mediated device that migrates, in both flavours. */
  public static LabDevices mtty() {
    return only(device -> device.driver().equals("mtty"));
  }

  /** The network card behind the IOMMU, flavour vtd. */
  public static LabDevices pci() {
    return only(device -> device.driver().equals("vfio-pci"));
  }

  /**
   * A device of our own, in both flavours: see {@link DmaDevice}.
   *
   * @param number from 0
   */
  public static LabDevices dmalog(int number) {
    return only(device -> device.name().equals("dmalog." + number));
  }

  private static LabDevices only(Predicate<VfioHostDevice> which) {
    return VfioHostDevice.list().stream()
        .filter(which)
        .reduce(
            (one, other) -> {
              throw new IllegalStateException("not one, but " + one + " and " + other);
            })
        .map(found -> new LabDevices(found.name(), found.cdev().get(), found.group().get()))
        .orElseThrow(() -> new IllegalStateException("none in " + VfioHostDevice.list()));
  }
}
