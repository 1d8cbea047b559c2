import java.security.PrivilegedExceptionAction;
import java.util.LinkedHashSet;
import java.util.Set;
import javax.security.auth.Subject;
import javax.security.auth.kerberos.KerberosTicket;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.security.UserGroupInformation;
import org.ietf.jgss.GSSContext;
import org.ietf.jgss.GSSManager;
import org.ietf.jgss.GSSName;
import org.ietf.jgss.Oid;

/**
 * A Hadoop client that logs in once, as HDFS, Hive and Spark do, and uses its ticket until it ends.
 *
 * <p>Its renewal is Hadoop's own, in the thread "TGT Renewer". Prints a line for each ticket that
 * the client has, and for each failure to use it. Arguments: the service; how many seconds Hadoop
 * waits at least between two log-ins (60 without one), so that tickets of seconds can be tried.
 */
public final class UgiReader {
  public static void main(String[] args) throws Exception {
    Configuration conf = new Configuration();
    conf.set("hadoop.kerberos.min.seconds.before.relogin", args[1]);
    UserGroupInformation.setConfiguration(conf);
    UserGroupInformation user = UserGroupInformation.getLoginUser();
    System.out.println("user " + user.getUserName() + " " + user.getAuthenticationMethod());
    Set<Long> seen = new LinkedHashSet<>();
    while (System.in.available() == 0) {
      try {
        long endsAt = user.doAs((PrivilegedExceptionAction<Long>) () -> use(args[0]));
        if (seen.add(endsAt)) {
          System.out.println("ticket " + endsAt);
        }
      } catch (Exception failure) {
        System.out.println("failed " + failure);
      }
      Thread.sleep(100);
    }
  }

  /** Gets a token for a service with the ticket of the log-in; returns when that ticket ends. */
  private static long use(String service) throws Exception {
    Oid kerberos = new Oid("1.2.840.113554.1.2.2");
    GSSManager manager = GSSManager.getInstance();
    GSSName name = manager.createName(service, new Oid("1.2.840.113554.1.2.2.1"));
    GSSContext context = manager.createContext(name, kerberos, null, GSSContext.DEFAULT_LIFETIME);
    context.initSecContext(new byte[0], 0, 0);
    context.dispose();
    Subject subject = Subject.getSubject(java.security.AccessController.getContext());
    for (KerberosTicket ticket : subject.getPrivateCredentials(KerberosTicket.class)) {
      if (ticket.getServer().getName().startsWith("krbtgt/")) {
        if (!ticket.isCurrent()) {
          throw new IllegalStateException("the ticket has ended at " + ticket.getEndTime());
        }
        return ticket.getEndTime().getTime() / 1000;
      }
    }
    throw new IllegalStateException("there is no ticket");
  }
}
