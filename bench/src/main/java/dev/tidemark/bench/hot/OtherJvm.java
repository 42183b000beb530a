package dev.tidemark.bench.hot;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;

/** Classes of this program in processes of their own, with the same Java and flags. */
public final class OtherJvm {
  private OtherJvm() {}

  static Process start(Class<?> main, String... arguments) {
    try {
      return command(main, arguments).redirectError(ProcessBuilder.Redirect.DISCARD).start();
    } catch (IOException e) {
      throw new IllegalStateException("no process for " + main.getName(), e);
    }
  }

  /** What starts such a process. */
  public static ProcessBuilder command(Class<?> main, String... arguments) {
    return command(List.of(), main, arguments);
  }

  /**
   * The same with more options for Java.
   *
   * @param options stronger than this process's own
   */
  public static ProcessBuilder command(List<String> options, Class<?> main, String... arguments) {
    List<String> command = new ArrayList<>();
    command.add(ProcessHandle.current().info().command().orElse("java"));
    command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
    command.addAll(options);
    // What a jar's manifest grants holds only for a process that is started with -jar.
    command.add("--enable-native-access=ALL-UNNAMED");
    command.add("-cp");
    command.add(System.getProperty("java.class.path"));
    command.add(main.getName());
    command.addAll(List.of(arguments));
    return new ProcessBuilder(command);
  }
}
