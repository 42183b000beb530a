package dev.tidemark.bench.qemu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class QemuBinaryTest {
  private static Path script(Path folder, String says) throws Exception {
    Path path = folder.resolve("qemu-system-x86_64");
    Files.writeString(Files.createDirectories(folder).resolve(path), "#!/bin/sh\n" + says + "\n");
    Files.setPosixFilePermissions(path, PosixFilePermissions.fromString("rwx------"));
    return path;
  }

  @Test
  void theNewestIsThatOfTheHighestVersionNumberByNumber(@TempDir Path folder) throws Exception {
    for (String version : List.of("9.2.4", "10.0.13", "11.1.3", "11.1", "7.2.22")) {
      script(folder.resolve(version), "echo 'QEMU emulator version " + version + " (Debian 1)'");
    }
    Files.createDirectories(folder.resolve("12 without a program"));
    assertEquals("11.1.3", QemuBinary.newest(folder).orElseThrow().version());
    assertTrue(QemuBinary.newest(folder.resolve("absent")).isEmpty());
  }

  @Test
  void whatNamesNoVersionIsNoQemu(@TempDir Path folder) throws Exception {
    Path path = script(folder, "echo hello");
    String message =
        assertThrows(IllegalStateException.class, () -> QemuBinary.of(path)).getMessage();
    assertTrue(message.contains("hello") && message.contains(path.toString()), message);
    assertThrows(IllegalStateException.class, () -> QemuBinary.of(folder.resolve("absent")));
  }
}
