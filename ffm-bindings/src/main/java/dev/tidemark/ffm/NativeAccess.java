package dev.tidemark.ffm;

import java.util.Optional;

/**
 * Whether this module may call native code (JEP 472).
 *
 * <p>Cost of a call of the kernel, which is that of every method here that makes one: up to 40
 * bytes on the Java heap, always, besides what the method says of itself. The JDK's linker makes a
 * slice of the memory that errno is kept in, and only the optimizing compiler may leave it out:
 * thousands of calls later, and not in every place.
 */
public final class NativeAccess {
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
}
