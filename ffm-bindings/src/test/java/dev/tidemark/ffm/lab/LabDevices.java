package dev.tidemark.ffm.lab;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/**
 * A VFIO device of the lab.
 *
 * @param name what a group knows it by
 * @param cdev its character device
 * @param group its group's
 */
public record LabDevices(String name, String cdev, String group) {
  /** The mediated device that migrates, in both flavours. */
  public static LabDevices mtty() throws IOException {
    return of(only(Path.of("/sys/bus/mdev/devices")));
  }

  /** The network card behind the IOMMU, flavour vtd. */
  public static LabDevices pci() throws IOException {
    List<Path> found;
    try (Stream<Path> files = Files.list(Path.of("/sys/bus/pci/drivers/vfio-pci"))) {
      found = files.filter(file -> file.getFileName().toString().contains(":")).toList();
    }
    return of(found.getFirst().toRealPath());
  }

  /**
   * A device of our own, in both flavours: see {@link DmaDevice}.
   *
   * @param number from 0
   */
  public static LabDevices dmalog(int number) throws IOException {
    return of(Path.of("/sys/bus/platform/devices/dmalog." + number).toRealPath());
  }

  private static LabDevices of(Path device) throws IOException {
    return new LabDevices(
        device.getFileName().toString(),
        "/dev/vfio/devices/" + only(device.resolve("vfio-dev")).getFileName(),
        "/dev/vfio/" + device.resolve("iommu_group").toRealPath().getFileName());
  }

  private static Path only(Path folder) throws IOException {
    try (Stream<Path> files = Files.list(folder)) {
      List<Path> found = files.toList();
      if (found.size() != 1) {
        throw new IllegalStateException("not one, but " + found.size() + " in " + folder);
      }
      return found.getFirst();
    }
  }
}
