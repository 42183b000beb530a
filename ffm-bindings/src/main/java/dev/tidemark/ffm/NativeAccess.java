package dev.tidemark.ffm;

import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/** Whether this module may call native code (JEP 472), and how well it does. */
public final class NativeAccess {
  /** More than it takes HotSpot to compile a method at its highest level. */
  private static final int WARM_UP_CALLS = 10_000;

  /** Close on exec, which it is anyway. */
  private static final long FIOCLEX = 0x5451;

  private NativeAccess() {}

  /**
   * Why no call of this module can work, asked before the first one.
   *
   * @return empty if native access is granted; else one line that names the flag to add
   */
  public static Optional<String> missing() {
    Module module = NativeAccess.class.getModule();
    if (module.isNativeAccessEnabled()) {
      return Optional.empty();
    }
    String name = module.isNamed() ? module.getName() : "ALL-UNNAMED";
    return Optional.of(
        "no native access: add --enable-native-access=" + name + " (or start with @jdk-flags.txt)");
  }

  /**
   * Makes the calls that a migration goes on making, some that fail among them, until they are
   * compiled. Before that the JDK makes an object of 40 bytes in each, and a migration has too few
   * of them for it to end by itself. Takes some tens of milliseconds.
   *
   * @throws LinuxException if {@code /dev/null} cannot be opened
   */
  public static void warmUp() {
    MemorySegment memory = Arena.ofAuto().allocate(8);
    Fd fd = Fd.open("/dev/null", Fd.O_RDWR);
    int number = fd.acquire();
    try {
      for (int i = 0; i < WARM_UP_CALLS; i++) {
        int target = i % 8 == 0 ? -1 : number;
        Libc.ioctl(target, FIOCLEX, i % 2 == 0 ? memory : MemorySegment.NULL);
        Libc.ioctl(target, FIOCLEX, 0);
        Libc.readv(target, 0, 0);
        Libc.writev(target, 0, 0);
      }
    } finally {
      fd.release();
      fd.close();
    }
  }
}
