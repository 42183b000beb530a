package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class HostMemoryTest {
  private static final long MIB = 1 << 20;
  private static final String V2 =
      "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
  private static final String V1 =
      "33 32 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
          + "35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 master:1 - cgroup cgroup rw,memory\n";

  @TempDir private Path root;

  private void file(String name, String text) throws IOException {
    Path file = root.resolve(name);
    Files.createDirectories(file.getParent());
    Files.writeString(file, text);
  }

  private HostMemory host(String mounts, String groups) throws IOException {
    file("proc/meminfo", "MemTotal:       8388608 kB\nMemAvailable:   4194304 kB\n");
    file("proc/self/mountinfo", "23 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts);
    file("proc/self/cgroup", groups);
    return new HostMemory(root);
  }

  private static void assertMib(long available, long limit, HostMemory host) {
    assertEquals(available * MIB, host.available());
    assertEquals(limit * MIB, host.limit());
  }

  @Test
  void withoutGroupsItIsWhatTheKernelHas() throws IOException {
    assertMib(4096, 8192, host("", ""));
    assertMib(4096, 8192, host(V2, "0::/\n"));
  }

  @Test
  void anyGroupAlongThePathLimits() throws IOException {
    HostMemory host = host(V2, "0::/a.slice/b.service\n");
    file("sys/fs/cgroup/a.slice/memory.max", "1073741824\n");
    file("sys/fs/cgroup/a.slice/memory.current", "134217728\n");
    file("sys/fs/cgroup/a.slice/memory.stat", "anon 1\ninactive_file 33554432\nactive_file 1\n");
    file("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
    file("sys/fs/cgroup/a.slice/b.service/memory.current", "4096\n");
    // Its neighbour's does not.
    file("sys/fs/cgroup/a.slice/c.service/memory.max", "4096\n");
    assertMib(1024 - 128 + 32, 1024, host);
    file("sys/fs/cgroup/a.slice/b.service/memory.max", "536870912\n");
    file("sys/fs/cgroup/a.slice/b.service/memory.current", "536870912\n");
    assertMib(0, 512, host);
  }

  @Test
  void soDoGroupsOfVersionOne() throws IOException {
    HostMemory host =
        host(V1 + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"), "4:memory:/x/y\n0::/\n");
    file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    file("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2147483648\n");
    file("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "1073741824\n");
    file("sys/fs/cgroup/memory/x/memory.stat", "inactive_file 0\ntotal_inactive_file 1048576\n");
    file("sys/fs/cgroup/memory/x/y/memory.limit_in_bytes", "9223372036854771712\n");
    file("sys/fs/cgroup/memory/x/y/memory.usage_in_bytes", "1073741824\n");
    assertMib(1025, 2048, host);
  }

  @Test
  void aContainerThatSeesOnlyItsOwnGroupIsLimitedByIt() throws IOException {
    // The path is the host's, the mount the container's.
    HostMemory host =
        host("31 23 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/docker/abc\n");
    file("sys/fs/cgroup/memory.max", "268435456\n");
    file("sys/fs/cgroup/memory.current", "0\n");
    assertMib(256, 256, host);
    // Of version 1 with no group namespace, the path may not be there at all.
    host = host(V1, "4:memory:/docker/abc\n");
    file("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n");
    file("sys/fs/cgroup/memory/memory.usage_in_bytes", "0\n");
    assertMib(128, 128, host);
    assertMib(4096, 8192, host("31 23 0:28 / /sys/fs/cgroup\n", "nonsense\n0::/../..\n"));
  }
}
