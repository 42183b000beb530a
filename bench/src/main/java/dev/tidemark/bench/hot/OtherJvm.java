package dev.tidemark.bench.hot;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;

/**
 * Classes of this program in processes of their own, with the same Java and those of its flags that
 * change what the program computes and how fast. Flags that print, record, listen or load an agent
 * are this process's own.
 */
public final class OtherJvm {
  private static final Pattern PASSED_ON =
      Pattern.compile(
          "--(add-modules|enable-native-access|illegal-native-access)=.*"
              + "|-Dtidemark\\..*|-Djava\\.lang\\.invoke\\..*"
              + "|-Xm[xsn].*|-Xss.*|-XX:[+]Use\\w+GC|-XX:TieredStopAtLevel=\\d"
              + "|-XX:CompileCommand=(quiet|inline|dontinline).*",
          Pattern.DOTALL);

  /** More flags for any Java, and a line on its standard error. */
  private static final List<String> FLAGS_OF_THE_ENVIRONMENT =
      List.of("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS");

  private OtherJvm() {}

  /** Whether a flag of this process is one for its children. */
  static boolean passedOn(String flag) {
    return PASSED_ON.matcher(flag).matches();
  }

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
   * @param options that override this process's own
   */
  public static ProcessBuilder command(List<String> options, Class<?> main, String... arguments) {
    List<String> command = new ArrayList<>();
    command.add(ProcessHandle.current().info().command().orElse("java"));
    ManagementFactory.getRuntimeMXBean().getInputArguments().stream()
        .filter(OtherJvm::passedOn)
        .forEach(command::add);
    command.addAll(options);
    // What a jar's manifest grants holds only for a process that is started with -jar.
    command.add("--enable-native-access=ALL-UNNAMED");
    command.add("-cp");
    command.add(System.getProperty("java.class.path"));
    command.add(main.getName());
    command.addAll(List.of(arguments));
    ProcessBuilder builder = new ProcessBuilder(command);
    // What they say is among this process's own flags.
    FLAGS_OF_THE_ENVIRONMENT.forEach(builder.environment()::remove);
    return builder;
  }
}
