package dev.tidemark.ffm.vfio;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class VfioHostDeviceTest {
  @TempDir private Path sysfs;

  private Path device(String node, String name) throws IOException {
    Path device = Files.createDirectories(sysfs.resolve("devices").resolve(name));
    Path entry = Files.createDirectories(sysfs.resolve("class/vfio-dev").resolve(node));
    Files.createSymbolicLink(entry.resolve("device"), device);
    return device;
  }

  private void link(Path device, String name, String target) throws IOException {
    Path folder = Files.createDirectories(sysfs.resolve(name + "s").resolve(target));
    Files.createSymbolicLink(device.resolve(name), folder);
  }

  @Test
  void whatSysfsTellsIsTaken() throws IOException {
    Path full = device("vfio1", "0000:3b:00.2");
    link(full, "driver", "vfio-pci");
    link(full, "iommu_group", "12");
    Files.writeString(sysfs.resolve("class/vfio-dev/vfio1/dev"), "511:1\n");
    // No character devices, no group, just unbound.
    device("vfio0", "0000:3b:00.3");
    assertEquals(
        List.of(
            new VfioHostDevice(
                "0000:3b:00.2",
                "vfio-pci",
                Optional.of("/dev/vfio/devices/vfio1"),
                Optional.of("/dev/vfio/12")),
            new VfioHostDevice("0000:3b:00.3", "", Optional.empty(), Optional.empty())),
        VfioHostDevice.list(sysfs.resolve("class/vfio-dev")));
  }

  @Test
  void aLinkToTheRootNamesNothing() throws IOException {
    Path entry = Files.createDirectories(sysfs.resolve("class/vfio-dev/vfio0"));
    Path other = device("vfio1", "0000:3b:00.2");
    List<Path> links =
        List.of(entry.resolve("device"), other.resolve("driver"), other.resolve("iommu_group"));
    for (Path link : links) {
      Files.createSymbolicLink(link, Path.of("/"));
    }
    assertEquals(
        List.of(
            new VfioHostDevice("0000:3b:00.2", "", Optional.empty(), Optional.empty()),
            new VfioHostDevice("vfio0", "", Optional.empty(), Optional.empty())),
        VfioHostDevice.list(sysfs.resolve("class/vfio-dev")));
    // Nobody is to follow them when the folder is deleted.
    for (Path link : links) {
      Files.delete(link);
    }
  }

  @Test
  void aKernelWithoutVfioHasNone() {
    assertEquals(List.of(), VfioHostDevice.list(sysfs.resolve("class/vfio-dev")));
  }
}
